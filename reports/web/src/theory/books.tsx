// SPDX-License-Identifier: Apache-2.0
// The books of the chosen step: at every mark the sum over the roles, added up here, against the
// ledger's total and the allocator's own count.
import type { Caching, MarkView, StepView } from '../data/types';
import { fix, human, inUnit, raw, unitFor } from '../format';
import { markName } from '../timeline/plot';
import { Swatch, usePage } from '../ui';

const MOST = 7; // columns

/** All marks, or the first, the fullest edges, the peak and the end of a step with many. */
function columnsOf(step: StepView): MarkView[] {
  const { marks } = step;
  if (marks.length <= MOST) return marks;
  const keep = new Set(marks.filter((mark) => !/forward_edge|backward_end/.test(mark.kind)));
  const rest = marks.filter((mark) => !keep.has(mark)).sort((a, b) => b.bytes - a.bytes);
  for (const mark of rest.slice(0, MOST - keep.size)) keep.add(mark);
  return marks.filter((mark) => keep.has(mark));
}
const sumOf = (mark: MarkView) => mark.roles.reduce((a, b) => a + b, 0);

export function Books({ step }: { step: StepView }) {
  const { run } = usePage();
  if (step.marks.length === 0) return null;
  const marks = columnsOf(step);
  const unit = unitFor(Math.max(...step.marks.map((mark) => mark.bytes)));
  const roles = run.meta.roles
    .map((_, role) => role)
    .filter((role) => step.marks.some((mark) => mark.roles[role] !== 0));
  const saved = step.marks.some((mark) => mark.saved > 0);
  const cells = (row: (mark: MarkView) => preact.ComponentChildren, cls = '') =>
    marks.map((mark) => (
      <td key={step.marks.indexOf(mark)} class={`num ${cls} ${peakClass(mark)}`}>
        {row(mark)}
      </td>
    ));
  const amount = (bytes: number) => (
    <span class={bytes === 0 ? 'zero' : ''} title={raw(bytes)}>
      {bytes === 0 ? '–' : inUnit(bytes, unit)}
    </span>
  );
  return (
    <div class="scroll flat books-box" tabIndex={0} role="region" aria-label="The books by mark">
      <table class="grid books">
        <thead>
          <tr>
            <th scope="col">
              books of step {fix(step.index)}, {unit.name}
            </th>
            {marks.map((mark) => (
              <th
                key={step.marks.indexOf(mark)}
                scope="col"
                class={`num ${peakClass(mark)}`}
                title={run.meta.marks.find((word) => word.key === mark.kind)?.meaning}
              >
                {markName(mark, step.microSteps)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {roles.map((role) => (
            <tr key={role}>
              <th scope="row" title={run.meta.roles[role].meaning}>
                <Swatch role={role} />
                {run.meta.roles[role].title}
              </th>
              {cells((mark) => amount(mark.roles[role]))}
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr class="sum">
            <th scope="row">sum of the roles</th>
            {cells((mark) => (
              <b title={raw(sumOf(mark))}>{inUnit(sumOf(mark), unit)}</b>
            ))}
          </tr>
          <tr>
            <th scope="row">in bytes</th>
            {cells((mark) => fix(sumOf(mark)))}
          </tr>
          <tr>
            <th scope="row">allocator’s own count</th>
            {cells((mark) => fix(mark.allocator))}
          </tr>
          <tr class="difference">
            <th scope="row">difference</th>
            {cells((mark) => (
              <b class={sumOf(mark) === mark.allocator ? '' : 'alarm'}>
                {fix(sumOf(mark) - mark.allocator)}
              </b>
            ))}
          </tr>
          {saved && (
            <tr class="saved">
              <th scope="row" title="Unique storages that autograd held, parameters left out">
                kept by autograd
              </th>
              {cells((mark) => amount(mark.saved))}
            </tr>
          )}
          <CachingRows step={step} marks={marks} />
        </tfoot>
      </table>
      <Verdict step={step} left={step.marks.length - marks.length} />
    </div>
  );
}

interface CachingRow {
  title: string;
  meaning: string;
  bytes: (mark: MarkView, caching: Caching) => number | null;
  check?: boolean; // a difference that must be 0
}
const less = (a: number | null, b: number) => (a === null ? null : b - a);
const cachingRows: CachingRow[] = [
  {
    title: 'requested',
    meaning: 'What the program asked for: the sum of the roles above.',
    bytes: (mark) => mark.bytes,
  },
  {
    title: 'rounding',
    meaning: 'What the allocator adds to them.',
    bytes: (mark, c) => c.active - mark.bytes,
  },
  {
    title: 'active',
    meaning: 'Blocks that live, or whose free waits for a stream, as the allocator rounds them.',
    bytes: (_, c) => c.active,
  },
  {
    title: 'allocated',
    meaning: 'Blocks that the program holds.',
    bytes: (_, c) => c.allocated,
  },
  {
    title: 'reserved',
    meaning: 'Segments that the allocator took from the device.',
    bytes: (_, c) => c.reserved,
  },
  {
    title: 'free in segments',
    meaning: 'Reserved and not active.',
    bytes: (_, c) => c.reserved - c.active,
  },
  {
    title: 'largest free block',
    meaning: 'One allocation can get no more of the free bytes than this: the rest is fragments.',
    bytes: (_, c) => c.largestFree,
  },
  {
    title: 'outside the allocator',
    meaning: 'In use on the device beside its segments: contexts, libraries, other processes.',
    bytes: (_, c) => c.outside,
  },
  {
    title: 'active, off by',
    meaning: 'Against the allocator’s own statistics.',
    bytes: (_, c) => less(c.allocatorActive, c.active),
    check: true,
  },
  {
    title: 'allocated, off by',
    meaning: 'Against the allocator’s own statistics.',
    bytes: (_, c) => less(c.allocatorAllocated, c.allocated),
    check: true,
  },
  {
    title: 'reserved, off by',
    meaning: 'Against the allocator’s own statistics.',
    bytes: (_, c) => less(c.allocatorReserved, c.reserved),
    check: true,
  },
];

/** What a caching allocator has beside the blocks; in no sum of roles. */
function CachingRows({ step, marks }: { step: StepView; marks: MarkView[] }) {
  if (!step.marks.some((mark) => mark.caching)) return null;
  const most = step.marks.reduce((bytes, mark) => Math.max(bytes, mark.caching?.reserved ?? 0), 0);
  const unit = unitFor(most);
  const inexact = step.marks.some((mark) => mark.caching && !mark.caching.exact);
  const amount = (row: CachingRow, mark: MarkView) => {
    const bytes = mark.caching ? row.bytes(mark, mark.caching) : null;
    if (bytes === null) return <span title="the allocator was not asked at this mark">–</span>;
    if (row.check) return <b class={bytes === 0 ? '' : 'alarm'}>{fix(bytes)}</b>;
    return <span title={raw(bytes)}>{bytes === 0 ? '0' : inUnit(bytes, unit)}</span>;
  };
  return (
    <>
      <tr class="caching-head">
        <th scope="rowgroup" colSpan={marks.length + 1}>
          caching allocator, {unit.name}
          {inexact && (
            <span class="alarm">
              : something did not follow its known rules; active, allocated and the largest free
              block may be off
            </span>
          )}
        </th>
      </tr>
      {cachingRows.map((row) => (
        <tr key={row.title} class={row.check ? 'caching check' : 'caching'}>
          <th scope="row" title={row.meaning}>
            {row.title}
          </th>
          {marks.map((mark) => (
            <td key={step.marks.indexOf(mark)} class={`num ${peakClass(mark)}`}>
              {amount(row, mark)}
            </td>
          ))}
        </tr>
      ))}
    </>
  );
}

const peakClass = (mark: MarkView) => (mark.kind === 'peak' ? 'at-peak' : '');

function Verdict({ step, left }: { step: StepView; left: number }) {
  const worst = Math.max(
    step.largestDifference,
    ...step.marks.map((mark) => Math.abs(sumOf(mark) - mark.allocator)),
    ...step.marks.map((mark) => Math.abs(mark.bytes - sumOf(mark))),
  );
  const events = step.allocations + step.frees;
  return (
    <p class="note">
      {worst === 0 ? (
        <b>The books close.</b>
      ) : (
        <b class="alarm">The books are off by up to {human(worst)}.</b>
      )}{' '}
      {worst === 0 ? 'No difference ' : 'Checked '}
      {events > 0
        ? `over ${fix(events)} allocations and frees, and at all ${step.marks.length} marks. `
        : `at all ${step.marks.length} marks. `}
      The allocator’s count comes from the allocator itself, not from these events.
      {left > 0 && ` ${left} marks between are not shown.`}
    </p>
  );
}
