// SPDX-License-Identifier: Apache-2.0
// What this report does not know: what was counted but not explained, what measuring cost, and
// under which versions, options and command it was measured.
import type { ComponentChildren } from 'preact';
import type { StepView } from './data/types';
import { clean, duration, fix, human, percent, raw } from './format';
import { Name, Section, usePage } from './ui';

interface Fact {
  name: string;
  value: ComponentChildren;
  text: ComponentChildren;
}

export function Unknown({ step }: { step: StepView }) {
  const { run } = usePage();
  const { meta } = run;
  const { overhead } = meta;
  const peak = step.peak?.bytes ?? 0;
  const inferred = step.peak?.cells.filter((cell) => cell.module.startsWith('after ')) ?? [];
  const inferredBytes = inferred.reduce((bytes, cell) => bytes + cell.bytes, 0);
  const kept = run.stepsInDetail().length;
  const facts: Fact[] = [
    {
      name: 'unattributed',
      value: <span title={raw(meta.unattributed_bytes)}>{human(meta.unattributed_bytes)}</span>,
      text:
        meta.unattributed_bytes === 0
          ? 'Every byte at the peak has a role that evidence proves.'
          : `${percent(meta.unattributed_bytes / Math.max(1, peak))} of the peak: no evidence names it.`,
    },
    {
      name: 'events lost',
      value: fix(meta.dropped_events),
      text:
        meta.dropped_events === 0
          ? 'No event was dropped.'
          : 'The sums of this report may be wrong by what these events did.',
    },
    {
      name: 'inferred modules',
      value: <span title={raw(inferredBytes)}>{human(inferredBytes)}</span>,
      text:
        inferredBytes === 0
          ? 'No module at the peak was inferred.'
          : 'At the peak: “after X” means that X was the last known module when it was made.',
    },
    {
      name: 'beside the allocators',
      value: <span title={raw(step.foreign)}>{human(step.foreign)}</span>,
      text:
        step.foreign === 0
          ? 'No tensor was seen whose memory no watched allocator made.'
          : 'Tensors from numpy, from_blob or mapped files. In no sum above.',
    },
    {
      name: 'profiler, on your threads',
      value: percent(overhead.share, 2),
      text: `${duration(overhead.seconds * 1e6)} in hooks while ${fix(run.steps)} steps ran.`,
    },
    {
      name: 'profiler, beside them',
      value: duration(overhead.bookkeeper_seconds * 1e6),
      text: 'On its own thread, which keeps the books.',
    },
    {
      name: 'profiler, memory',
      value: <span title={raw(overhead.bytes)}>{human(overhead.bytes)}</span>,
      text: 'Held by its tables and logs at most. Not in any chart above.',
    },
    {
      name: 'steps in detail',
      value: `${fix(kept)} of ${fix(run.steps)}`,
      text:
        'Their timeline, blocks and operators are in this file. Of the others, the books at their ' +
        (meta.marks_left_out ? 'main marks.' : 'marks.'),
    },
  ];
  return (
    <Section
      id="unknown"
      title="What this report does not know"
      take="What was counted but not explained, and what the measuring itself cost."
    >
      <dl class="facts">
        {facts.map((fact) => (
          <div key={fact.name}>
            <dt>{fact.name}</dt>
            <dd class="num">{fact.value}</dd>
            <dd>{fact.text}</dd>
          </div>
        ))}
      </dl>
      <div class="two unknown-more">
        <div>
          <h3>Notes</h3>
          {meta.notes.length > 0 ? (
            <ul class="notes">
              {meta.notes.map((note) => (
                <li key={note}>
                  <bdi>{clean(note)}</bdi>
                </li>
              ))}
            </ul>
          ) : (
            <p class="caption">The recording has nothing to add.</p>
          )}
        </div>
        <RunFacts />
      </div>
    </Section>
  );
}

function RunFacts() {
  const { meta } = usePage().run;
  const endings: Record<string, string> = {
    clean: 'ran to its end',
    exception: 'ended by an exception',
    killed: 'was killed',
    running: 'was still running',
  };
  const { parameters } = meta;
  const rows: [string, ComponentChildren][] = [
    ['command', <Name text={meta.command.join(' ') || '–'} />],
    ['recording', <Name text={meta.recording || '–'} />],
    ['started', clean(meta.started)],
    ['program', endings[meta.ended] ?? clean(meta.ended)],
    [
      'parameters',
      `${fix(parameters.count)}, ${fix(parameters.trainable)} trainable, ${human(parameters.bytes)}`,
    ],
    ['optimizer', meta.optimizers.map(clean).join(', ') || 'none watched'],
    ...meta.devices.map((device): [string, ComponentChildren] => [
      clean(device.id),
      `${clean(device.name)}${device.memory_bytes ? `, ${human(device.memory_bytes)}` : ''}`,
    ]),
    ...pairs(meta.versions),
    ...pairs(meta.options),
  ];
  return (
    <div>
      <h3>The run</h3>
      <dl class="pairs">
        {rows.map(([name, value], i) => (
          <div key={i}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}
const pairs = (values: [string, string][]) =>
  values.map(([name, value]): [string, ComponentChildren] => [clean(name), clean(value)]);
