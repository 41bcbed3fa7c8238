// SPDX-License-Identifier: Apache-2.0
// FLOPs of a step: by module and by operator, split by phase; other counts beside ours.
import { useMemo, useState } from 'preact/hooks';
import type { Run } from './data/run';
import type { Executed, OperatorRow, StepView } from './data/types';
import { addExecuted, Counted, ExecutedCells, ExecutedHeads, isCounted, nothing } from './executed';
import { clean, duration, fix, flop, flopRate, human, percent, signedPercent } from './format';
import { ofTheory } from './theory/theory';
import { Kernels } from './kernels';
import { Roofline } from './roofline';
import { Choice, ModuleName, Name, Section, usePage } from './ui';

/** The phases that work is booked to; the others count as forward. */
const PHASES = ['forward', 'backward', 'recompute', 'optimizer'] as const;

interface Work {
  name: string;
  phases: number[];
  flops: number;
  elementwise: number;
  calls: number;
  ns: number;
  executed: Executed;
}

/** "h.3.mlp.c_fc" -> "h.*.mlp.c_fc"; a name that is a number, as in a Sequential, stays. */
export const folded = (module: string) =>
  /^(after )?\d+$/.test(module) ? module : module.replace(/(^|[. ])\d+(?=\.|$)/g, '$1*');

function sumBy(run: Run, rows: OperatorRow[], key: (row: OperatorRow) => string): Work[] {
  const groups = new Map<string, Work>();
  for (const row of rows) {
    const name = key(row);
    let group = groups.get(name);
    if (!group) {
      group = { name, phases: [0, 0, 0, 0], flops: 0, elementwise: 0, calls: 0, ns: 0, executed: nothing() };
      groups.set(name, group);
    }
    const phase = PHASES.indexOf(run.meta.phases[row.phase].key as (typeof PHASES)[number]);
    group.phases[Math.max(0, phase)] += row.flops;
    group.flops += row.flops;
    group.elementwise += row.elementwise;
    group.calls += row.calls;
    group.ns += row.ns;
    addExecuted(group.executed, row.executed);
  }
  return [...groups.values()].sort(
    (a, b) => b.flops - a.flops || b.elementwise - a.elementwise || b.ns - a.ns,
  );
}

export function FlopsSection({ step }: { step: StepView }) {
  const { run } = usePage();
  const { flops } = step;
  return (
    <Section id="flops" title="FLOPs" take={<Takeaway step={step} />}>
      <div class={step.operators.some((row) => isCounted(row.executed)) ? 'two stacked' : 'two'}>
        <div>
          <Numbers step={step} />
          <Counted step={step} />
          <Use step={step} />
          <Legend step={step} />
          <ByModule step={step} />
        </div>
        <div>
          <ByOperator step={step} />
          {step.position === run.meta.shown && <Kernels />}
          {step.position === run.meta.shown && <Roofline />}
          <Rules step={step} />
        </div>
      </div>
      {flops.total === 0 && (
        <p class="note">No operator with a formula for its FLOPs ran in this step.</p>
      )}
    </Section>
  );
}

function Takeaway({ step }: { step: StepView }) {
  const { run } = usePage();
  const modules = useMemo(() => sumBy(run, step.operators, (row) => folded(row.module)), [step]);
  const { flops } = step;
  const [most] = modules;
  return (
    <>
      Step {step.index}: {flop(flops.total)} in {duration(step.us)}.{' '}
      {most && flops.total > 0 && (
        <>
          <ModuleName name={most.name} /> does {percent(most.flops / flops.total, 0)} of it.{' '}
        </>
      )}
      {flops.recompute > 0 && <>{percent(flops.recompute / flops.total)} is done twice.</>}
    </>
  );
}

function Numbers({ step }: { step: StepView }) {
  const { run } = usePage();
  const { flops } = step;
  const sixNd = run.meta.theory.find((row) => row.key === 'flops_total');
  const shown = step.position === run.meta.shown;
  const use = run.meta.utilization;
  const same = flops.torch === flops.total;
  return (
    <dl class="numbers">
      <div>
        <dt>counted</dt>
        <dd title={fix(flops.total)}>{flop(flops.total)}</dd>
        <dd>{step.us > 0 ? flopRate((flops.total / step.us) * 1e6) : ''}</dd>
      </div>
      <div>
        <dt>PyTorch’s flop_counter</dt>
        <dd title={fix(flops.torch)}>{flop(flops.torch)}</dd>
        <dd>
          {same ? 'the same' : flops.total ? signedPercent(flops.torch / flops.total - 1, 2) : ''}
        </dd>
      </div>
      <div>
        <dt>element-wise, apart</dt>
        <dd title={fix(flops.elementwise)}>{flop(flops.elementwise)}</dd>
        <dd>{flops.total ? `${percent(flops.elementwise / flops.total)} beside it` : ''}</dd>
      </div>
      {shown && sixNd && sixNd.expected !== null && (
        <div>
          <dt>{/^\s*2 N D/.test(sixNd.formula) ? '2·N·D' : '6·N·D'}</dt>
          <dd title={fix(sixNd.expected)}>{flop(sixNd.expected)}</dd>
          <dd>{ofTheory(sixNd) === 'exact' ? 'exact' : `counted: ${ofTheory(sixNd)}`}</dd>
        </div>
      )}
      {shown && use.mfu !== null && use.hfu !== null && (
        <>
          <div>
            <dt>MFU</dt>
            <dd>{percent(use.mfu)}</dd>
            <dd>without recomputation</dd>
          </div>
          <div>
            <dt>HFU</dt>
            <dd>{percent(use.hfu)}</dd>
            <dd>all that was counted</dd>
          </div>
        </>
      )}
    </dl>
  );
}

/** What MFU and HFU are shares of, or why there are none; the same for the roofline. */
function Use({ step }: { step: StepView }) {
  const { run } = usePage();
  const use = run.meta.utilization;
  if (step.position !== run.meta.shown) return null;
  return (
    <p class="caption">
      MFU and HFU: {clean(use.cause)}. Roofline: {clean(use.roofline_cause)}
      {use.roofline.length === 0 && use.peak !== null && use.bytes_per_second !== null && (
        <>
          {' '}
          (its ridge: {fix(use.peak / use.bytes_per_second)} FLOP a byte, {flopRate(use.peak)} over{' '}
          {human(use.bytes_per_second)}/s)
        </>
      )}
      .
    </p>
  );
}

function Legend({ step }: { step: StepView }) {
  const { flops } = step;
  if (flops.total === 0) return null;
  return (
    <div class="legend">
      {PHASES.map((phase) => (
        <span key={phase}>
          <i class={`phase ${phase}`} aria-hidden="true" />
          {phase} <b class="num">{percent(flops[phase] / flops.total)}</b>
        </span>
      ))}
    </div>
  );
}

const FEW = 9;
const ON_PAPER = 15; // rows, where nothing can be opened

function More({ all, rest, onToggle }: { all: boolean; rest: number; onToggle: () => void }) {
  if (rest <= 0) return null;
  return (
    <button class="link more" onClick={onToggle}>
      {all ? 'Show fewer' : `Show ${fix(rest)} more`}
    </button>
  );
}

function ByModule({ step }: { step: StepView }) {
  const { run, printing } = usePage();
  const [fold, setFold] = useState<'layers' | 'each'>(() => {
    const working = new Set(step.operators.filter((op) => op.flops > 0).map((op) => op.module));
    return working.size > FEW ? 'layers' : 'each';
  });
  const [all, setAll] = useState(false);
  const rows = useMemo(
    () =>
      sumBy(run, step.operators, (row) => (fold === 'layers' ? folded(row.module) : row.module)),
    [step, fold],
  );
  // Modules without counted work come only when asked for.
  const few = Math.min(FEW, Math.max(1, rows.filter((row) => row.flops > 0).length));
  const onPaper = Math.min(ON_PAPER, rows.filter((row) => row.flops > 0).length);
  const shown = rows.slice(0, printing ? onPaper : all ? rows.length : few);
  const most = Math.max(1, rows[0]?.flops ?? 0);
  const counted = rows.some((row) => isCounted(row.executed));
  return (
    <>
      <div class="bar">
        <h3>By module</h3>
        <Choice
          label="Layers"
          options={[
            ['layers', 'Layers folded'],
            ['each', 'Each'],
          ]}
          value={fold}
          onChange={setFold}
        />
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label="FLOPs by module">
        <table class="grid work">
          <thead>
            <tr>
              <th scope="col">module</th>
              <th scope="col" class="c-track">
                by phase
              </th>
              <th scope="col" class="num">
                FLOPs
              </th>
              <th scope="col" class="num">
                share
              </th>
              {counted && <ExecutedHeads />}
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => (
              <tr key={row.name}>
                <th scope="row">
                  <ModuleName name={row.name} />
                </th>
                <td class="c-track">
                  <div class="track" aria-hidden="true">
                    {PHASES.map((phase, i) => (
                      <div
                        key={phase}
                        class={`phase ${phase}`}
                        style={{ width: `${(row.phases[i] / most) * 100}%` }}
                      />
                    ))}
                  </div>
                </td>
                <td class="num" title={fix(row.flops)}>
                  {flop(row.flops)}
                </td>
                <td class="num">
                  {step.flops.total ? percent(row.flops / step.flops.total) : '–'}
                </td>
                {counted && <ExecutedCells executed={row.executed} />}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <More all={all} rest={rows.length - few} onToggle={() => setAll(!all)} />
    </>
  );
}

function ByOperator({ step }: { step: StepView }) {
  const { run, printing } = usePage();
  const [all, setAll] = useState(false);
  const rows = useMemo(() => sumBy(run, step.operators, (row) => row.op), [step]);
  const shown = rows.slice(0, printing ? ON_PAPER : all ? rows.length : FEW);
  const timed = rows.some((row) => row.ns > 0);
  const counted = rows.some((row) => isCounted(row.executed));
  return (
    <>
      <h3>By operator</h3>
      <div class="scroll" tabIndex={0} role="region" aria-label="FLOPs by operator">
        <table class="grid work">
          <thead>
            <tr>
              <th scope="col">operator</th>
              <th scope="col" class="num">
                calls
              </th>
              <th scope="col" class="num">
                FLOPs
              </th>
              <th scope="col" class="num c-elementwise">
                element-wise
              </th>
              {timed && (
                <th scope="col" class="num">
                  time
                </th>
              )}
              {counted && <ExecutedHeads />}
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => (
              <tr key={row.name}>
                <th scope="row">
                  <Name text={row.name || 'no operator'} />
                </th>
                <td class="num">{fix(row.calls)}</td>
                <td class="num" title={fix(row.flops)}>
                  {row.flops ? flop(row.flops) : '–'}
                </td>
                <td class="num c-elementwise" title={fix(row.elementwise)}>
                  {row.elementwise ? flop(row.elementwise) : '–'}
                </td>
                {timed && <td class="num">{duration(row.ns / 1000)}</td>}
                {counted && <ExecutedCells executed={row.executed} />}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <More all={all} rest={rows.length - FEW} onToggle={() => setAll(!all)} />
    </>
  );
}

/** What the rules of thumb say; only for the step that the theory is about. */
function Rules({ step }: { step: StepView }) {
  const { run } = usePage();
  const rows = run.meta.theory.filter((row) => row.unit !== 'bytes');
  if (rows.length === 0 || step.position !== run.meta.shown) return null;
  return (
    <>
      <h3 class="next">Against the rules of thumb</h3>
      <dl class="rules-of-thumb">
        {rows.map((row) => (
          <div key={row.key}>
            <dt>{clean(row.title).replace(/^FLOPs, /, '')}</dt>
            <dd class="num">
              <b>{flop(row.measured)}</b>
              {row.expected !== null && ` of ${flop(row.expected)}`}
              {row.expected !== null && `, ${ofTheory(row)}`}
            </dd>
            <dd>
              {row.cause !== 'exact' && clean(row.cause)}
              <small>{clean(row.formula)}</small>
            </dd>
          </div>
        ))}
      </dl>
    </>
  );
}
