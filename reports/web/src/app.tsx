// SPDX-License-Identifier: Apache-2.0
// The page: which step, device and mark is looked at, and the sections in the order a person asks.
import { useEffect, useMemo, useState } from 'preact/hooks';
import { Alive } from './alive/alive';
import { Answer } from './answer';
import type { Run } from './data/run';
import type { StepView } from './data/types';
import { clean, duration, fix } from './format';
import { FlopsSection } from './flops';
import { Theory } from './theory/theory';
import { TimelineSection } from './timeline/timeline';
import { RankTable } from './ranks';
import { Trend } from './trend';
import { Choice, PageContext, Section, usePage, usePrinting, useTheme, type Theme } from './ui';
import { Unknown } from './unknown';
import { Verdicts } from './verdicts';

const LATER: [id: string, title: string][] = [
  ['peak', 'Peak'],
  ['theory', 'Theory'],
  ['flops', 'FLOPs'],
  ['verdicts', 'Verdicts'],
  ['trend', 'Steps'],
  ['ranks', 'Ranks'],
  ['unknown', 'Limits'],
];

interface AppProps {
  run: Run;
  ranks: number[]; // that can be chosen; none: the run was alone
  onRank: (rank: number) => void;
}
export function App({ run, ranks, onRank }: AppProps) {
  const printing = usePrinting();
  const [theme, setTheme] = useTheme(run, printing);
  const { shown } = run.meta;
  const devices = useMemo(() => run.devicesOf(shown), [run]);
  const [device, setDevice] = useState(run.meta.device || (devices[0] ?? ''));
  const [position, setPosition] = useState(shown);
  const [markOf, setMarkOf] = useState({
    kind: run.meta.at.kind,
    microStep: run.meta.at.micro_step,
  });
  const rest = useLater();
  const page = useMemo(() => ({ run, theme, printing }), [run, theme, printing]);

  const step = run.step(position, device);
  const explained = run.step(shown, device);
  const mark =
    step.marks.find((m) => m.kind === markOf.kind && m.microStep === markOf.microStep) ??
    step.marks.find((m) => m.kind === markOf.kind) ??
    step.peak;
  const worked = step.operators.length > 0 ? step : explained;
  const hasWork = worked.operators.length > 0 || worked.flops.total > 0;
  const sections = LATER.filter(
    ([id]) =>
      (id !== 'flops' || hasWork) &&
      (id !== 'verdicts' || run.meta.verdicts.length > 0) &&
      (id !== 'ranks' || ranks.length > 0),
  );

  return (
    <PageContext.Provider value={page}>
      <Top run={run} theme={theme} onTheme={setTheme} sections={sections} />
      <main>
        <Answer step={explained} />
        <Section id="timeline" title="Timeline" take={<TimelineTake step={step} />}>
          {(devices.length > 1 || ranks.length > 1) && (
            <div class="bar device-choice">
              {ranks.length > 1 && (
                <label>
                  rank{' '}
                  <select
                    aria-label="Rank"
                    value={run.meta.rank}
                    onChange={(event) => onRank(Number(event.currentTarget.value))}
                  >
                    {ranks.map((rank) => (
                      <option key={rank} value={rank}>
                        {rank}
                      </option>
                    ))}
                  </select>
                </label>
              )}
              {devices.length > 1 && (
                <Choice
                  label="Device"
                  options={devices.map((name): [string, string] => [name, clean(name)])}
                  value={device}
                  onChange={setDevice}
                />
              )}
            </div>
          )}
          <TimelineSection step={step} onStep={setPosition} />
        </Section>
        {rest && (
          <>
            {mark && <Alive step={step} mark={mark} onMark={setMarkOf} />}
            <Theory step={step} />
            {hasWork && <FlopsSection step={worked} />}
            {run.meta.verdicts.length > 0 && <Verdicts />}
            <Trend device={device} />
            {ranks.length > 0 && <RankTable />}
            <Unknown step={explained} />
          </>
        )}
      </main>
      <Foot run={run} />
    </PageContext.Provider>
  );
}

/** False in the first frame, so that the answer and the timeline are there at once. */
function useLater(): boolean {
  const [later, setLater] = useState(false);
  useEffect(() => {
    requestAnimationFrame(() =>
      setTimeout(() => {
        performance.mark('tally:answer');
        setLater(true);
        requestAnimationFrame(() =>
          setTimeout(() => {
            performance.mark('tally:ready');
            document.documentElement.dataset.ready = '1';
          }),
        );
      }),
    );
  }, []);
  return later;
}

function TimelineTake({ step }: { step: StepView }) {
  const { run } = usePage();
  const events = step.allocations + step.frees;
  const micro = step.microSteps === 1 ? 'one micro-step' : `${fix(step.microSteps)} micro-steps`;
  return (
    <>
      Step {fix(step.index)}: {micro}, {events > 0 && <>{fix(events)} allocations and frees in </>}
      {duration(step.us)}.{' '}
      {step.peak && (
        <>
          It peaks {duration(step.peak.us)} in, in {run.meta.phases[step.peak.phase].title}.
        </>
      )}
    </>
  );
}

const baseName = (path: string) => path.slice(path.lastIndexOf('/') + 1);

interface TopProps {
  run: Run;
  theme: Theme;
  onTheme: (theme: Theme) => void;
  sections: [id: string, title: string][];
}
function Top({ run, theme, onTheme, sections }: TopProps) {
  const { meta } = run;
  const facts = [
    clean(baseName(meta.command[0] ?? '')),
    meta.optimizers.map(clean).join(', '),
    meta.devices.map((device) => clean(device.id)).join(', '),
    meta.parameters.count > 0 ? `${fix(meta.parameters.count)} parameters` : '',
    `${fix(run.steps)} step${run.steps === 1 ? '' : 's'}`,
    meta.rank >= 0 ? `rank ${meta.rank} of ${fix(meta.world_size || meta.ranks.length)}` : '',
  ].filter(Boolean);
  const other = theme === 'dark' ? 'light' : 'dark';
  return (
    <header class="top">
      <a class="brand" href="#answer">
        <svg viewBox="0 0 28 20" width="28" height="20" aria-hidden="true">
          <path d="M4 2v16M10 2v16M16 2v16M22 2v16M1 15 27 5" />
        </svg>
        TorchTally
      </a>
      <p class="run">
        {facts.map((fact) => (
          <span key={fact}>{fact}</span>
        ))}
      </p>
      <nav aria-label="Sections">
        <a href="#timeline">Timeline</a>
        {sections.map(([id, title]) => (
          <a key={id} href={`#${id}`}>
            {title}
          </a>
        ))}
      </nav>
      <button
        class="theme"
        onClick={() => onTheme(other)}
        aria-label={`Switch to the ${other} theme`}
      >
        <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
          <circle cx="8" cy="8" r="6.5" />
          <path d="M8 1.5a6.5 6.5 0 0 1 0 13z" class="half" />
        </svg>
      </button>
    </header>
  );
}

function Foot({ run }: { run: Run }) {
  const version = run.meta.versions.find(([name]) => name === 'torchtally')?.[1] ?? '';
  return (
    <footer class="foot">
      <span>TorchTally {clean(version)}</span>
      <span>one file, nothing loaded from elsewhere</span>
      <span>MiB and GiB are binary; FLOP counts are decimal</span>
      <span>recorded {clean(run.meta.started)}</span>
    </footer>
  );
}
