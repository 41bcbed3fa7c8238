// SPDX-License-Identifier: Apache-2.0
// What was alive at the peak, or at any other mark of the step.
import { useEffect, useMemo, useState } from 'preact/hooks';
import type { MarkView, StepView } from '../data/types';
import { fix, human, percent, raw } from '../format';
import { markName } from '../timeline/plot';
import { Choice, Section, usePage } from '../ui';
import { everything, rowsAt, total, type Row } from './rows';
import { AliveTable } from './table';
import { Treemap } from './treemap';

export interface AliveProps {
  step: StepView;
  mark: MarkView;
  onMark: (mark: MarkView) => void;
}

export function Alive({ step, mark, onMark }: AliveProps) {
  const [filter, setFilter] = useState(everything);
  const rows = useMemo(() => rowsAt(step, mark), [step, mark]);
  useEffect(() => setFilter(everything), [rows]);
  const name = markName(mark, step.microSteps);
  const where = mark.kind === 'peak' ? 'the peak' : `the mark “${name}”`;
  const label = `What was alive at ${where} of step ${step.index}`;
  return (
    <Section
      id="peak"
      title={mark.kind === 'peak' ? 'Alive at the peak' : `Alive at: ${name}`}
      take={<Takeaway step={step} mark={mark} rows={rows} />}
    >
      <div class="bar mark-choice">
        <MarkChoice step={step} mark={mark} onMark={onMark} />
        <span class="count num">
          step {fix(step.index)}, <b title={raw(mark.bytes)}>{human(mark.bytes)}</b> alive
        </span>
      </div>
      <Treemap rows={rows} filter={filter} onFilter={setFilter} label={label} />
      <AliveTable step={step} rows={rows} filter={filter} onFilter={setFilter} label={label} />
    </Section>
  );
}

function MarkChoice({ step, mark, onMark }: AliveProps) {
  const value = step.marks.indexOf(mark);
  const choose = (index: number) => onMark(step.marks[index]);
  if (step.marks.length <= 6) {
    return (
      <Choice
        label="Mark"
        options={step.marks.map((m, i): [number, string] => [i, markName(m, step.microSteps)])}
        value={value}
        onChange={choose}
      />
    );
  }
  return (
    <select
      aria-label="Mark"
      value={value}
      onChange={(event) => choose(Number(event.currentTarget.value))}
    >
      {step.marks.map((m, i) => (
        <option key={i} value={i}>
          {markName(m, step.microSteps)}, {human(m.bytes)}
        </option>
      ))}
    </select>
  );
}

function Takeaway({ step, mark, rows }: { step: StepView; mark: MarkView; rows: Row[] }) {
  const { run } = usePage();
  const all = total(rows);
  if (all <= 0) return <>Nothing was alive.</>;
  const blocks = rows.reduce((count, row) => count + row.count, 0);
  const [largest] = rows;
  const role = run.meta.roles[largest.role].title;
  const share = percent(largest.bytes / all, 0);
  const temporaries = mark.roles.reduce(
    (bytes, b, i) => (run.meta.roles[i].key.startsWith('temporary') ? bytes + b : bytes),
    0,
  );
  const most = mark.roles.indexOf(Math.max(...mark.roles));
  const single = mark.kind === 'peak' && step.blocks.length > 0;
  return (
    <>
      {blocks > 0 && <>{fix(blocks)} blocks, </>}
      {percent(mark.roles[most] / all, 0)} {run.meta.roles[most].title}.{' '}
      {single && largest.count === 1 && (
        <>
          The largest, among {role}, holds {share} of it.{' '}
        </>
      )}
      {temporaries > 0
        ? `${human(temporaries)} are temporaries, gone soon after.`
        : 'No temporaries among them.'}
    </>
  );
}
