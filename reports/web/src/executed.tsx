// SPDX-License-Identifier: Apache-2.0
// What hardware counters told, beside the formulas.
import type { Word } from './data/layout';
import type { Executed, StepView } from './data/types';
import { duration, fix, flop, human, percent, signedPercent } from './format';
import { usePage } from './ui';

export const nothing = (): Executed => ({ tensor: 0, scalar: 0, ns: 0, dram: 0, formats: [] });
export function addExecuted(sum: Executed, part: Executed) {
  sum.tensor += part.tensor;
  sum.scalar += part.scalar;
  sum.ns += part.ns;
  sum.dram += part.dram;
  part.formats.forEach((flops, i) => (sum.formats[i] = (sum.formats[i] ?? 0) + flops));
}
export const isCounted = (one: Executed) => one.tensor + one.scalar + one.ns + one.dram > 0;

/** "tensor bf16 1.2 TFLOP, tensor tf32 3 GFLOP": the most first; "" where it is not known. */
export const formatsText = (words: Word[], executed: Executed) =>
  executed.formats
    .map((flops, i): [string, number] => [words[i].title, flops])
    .filter(([, flops]) => flops > 0)
    .sort((a, b) => b[1] - a[1])
    .map(([title, flops]) => `${title} ${flop(flops)}`)
    .join(', ');

export interface FormatRow {
  title: string;
  meaning: string;
  flops: number;
  phases: number[]; // of the words of Meta
}
/** What a step executed by number format, the most first. */
export function byFormat(words: Word[], phases: number, step: StepView): FormatRow[] {
  const rows = words.map(({ title, meaning }) => ({
    title,
    meaning,
    flops: 0,
    phases: Array.from({ length: phases }, () => 0),
  }));
  for (const { phase, executed } of step.operators) {
    executed.formats.forEach((flops, i) => {
      rows[i].flops += flops;
      rows[i].phases[phase] += flops;
    });
  }
  return rows.filter((row) => row.flops > 0).sort((a, b) => b.flops - a.flops);
}

function ByFormat({ step }: { step: StepView }) {
  const { run } = usePage();
  const words = run.meta.phases;
  const rows = byFormat(run.meta.formats, words.length, step);
  if (rows.length === 0) return null;
  const all = rows.reduce((sum, row) => sum + row.flops, 0);
  const phases = words
    .map((word, i) => ({ title: word.title, i }))
    .filter(({ i }) => rows.some((row) => row.phases[i] > 0));
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Executed FLOPs by number format">
      <table class="grid work">
        <thead>
          <tr>
            <th scope="col">number format</th>
            <th scope="col" class="num">
              executed
            </th>
            <th scope="col" class="num">
              share
            </th>
            {phases.map(({ title }) => (
              <th key={title} scope="col" class="num">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.title}>
              <th scope="row" title={row.meaning}>
                {row.title}
              </th>
              <td class="num" title={fix(row.flops)}>
                {flop(row.flops)}
              </td>
              <td class="num">{percent(row.flops / all)}</td>
              {phases.map(({ title, i }) => (
                <td key={title} class="num" title={fix(row.phases[i])}>
                  {row.phases[i] ? flop(row.phases[i]) : '–'}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** What hardware counters told of this step; a step counts one set of them. */
export function Counted({ step }: { step: StepView }) {
  const sum = nothing();
  for (const row of step.operators) addExecuted(sum, row.executed);
  if (!isCounted(sum)) return null;
  const { flops } = step;
  const work = flops.total + flops.elementwise;
  const executed = sum.tensor + sum.scalar;
  return (
    <>
      <h3>By hardware counters</h3>
      <dl class="numbers counted">
        <div>
          <dt>tensor cores</dt>
          <dd title={fix(sum.tensor)}>{sum.tensor ? flop(sum.tensor) : 'not in this step'}</dd>
          <dd>{sum.tensor && flops.total ? `${signedPercent(sum.tensor / flops.total - 1)} to the formulas` : ''}</dd>
        </div>
        <div>
          <dt>scalar instructions</dt>
          <dd title={fix(sum.scalar)}>{sum.scalar ? flop(sum.scalar) : 'not in this step'}</dd>
          <dd>{executed && work ? `all: ${percent(executed / work)} of formulas` : ''}</dd>
        </div>
        <div>
          <dt>kernels ran</dt>
          <dd>{sum.ns ? duration(sum.ns / 1000) : 'not in this step'}</dd>
          <dd>{sum.ns && step.us ? `${percent(sum.ns / 1000 / step.us)} of the step` : ''}</dd>
        </div>
        <div>
          <dt>device memory moved</dt>
          <dd title={fix(sum.dram)}>{sum.dram ? human(sum.dram) : 'not in this step'}</dd>
          <dd>{sum.dram && sum.ns ? `${human((sum.dram / sum.ns) * 1e9)}/s` : ''}</dd>
        </div>
      </dl>
      <ByFormat step={step} />
      <Difference step={step} />
    </>
  );
}

const signed = (flops: number) => `${flops < 0 ? '−' : '+'}${flop(Math.abs(flops))}`;

/** From the model's FLOPs to what tensor cores executed; only for the step that it is about. */
function Difference({ step }: { step: StepView }) {
  const { run } = usePage();
  const difference = run.meta.utilization.executed_difference;
  if (!difference || step.position !== run.meta.shown) return null;
  const { model, executed, causes } = difference;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Executed against the formulas">
      <table class="grid work">
        <thead>
          <tr>
            <th scope="col">from formulas to tensor cores</th>
            <th scope="col" class="num">
              FLOPs
            </th>
            <th scope="col">in</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <th scope="row">the model, by formula</th>
            <td class="num" title={fix(model)}>
              {flop(model)}
            </td>
            <td />
          </tr>
          {causes.map((cause) => (
            <tr key={cause.title}>
              <th scope="row" title={cause.why}>
                {cause.title}
              </th>
              <td class="num" title={fix(cause.flops)}>
                {signed(cause.flops)}
              </td>
              <td title={cause.operators.map(([name, flops]) => `${name} ${signed(flops)}`).join(', ')}>
                {cause.operators
                  .slice(0, 2)
                  .map(([name]) => name || 'no operator')
                  .join(', ')}
                {cause.operators.length > 2 && ', …'}
              </td>
            </tr>
          ))}
          <tr>
            <th scope="row">executed on tensor cores</th>
            <td class="num" title={fix(executed)}>
              {flop(executed)}
            </td>
            <td />
          </tr>
        </tbody>
      </table>
    </div>
  );
}

/** The columns of hardware counters. */
export function ExecutedHeads() {
  const heads: [text: string, title: string][] = [
    ['executed', 'FLOPs on tensor cores and by scalar instructions'],
    ['kernels', 'time of its kernels'],
    ['moved', 'bytes read from and written to the device’s memory'],
  ];
  return heads.map(([text, title]) => (
    <th key={text} scope="col" class="num" title={title}>
      {text}
    </th>
  ));
}
export function ExecutedCells({ executed }: { executed: Executed }) {
  const { run } = usePage();
  const { tensor, scalar, ns, dram } = executed;
  const formats = formatsText(run.meta.formats, executed);
  const kinds = `tensor cores ${fix(tensor)}, scalar ${fix(scalar)}${formats && `: ${formats}`}`;
  return (
    <>
      <td class="num" title={kinds}>
        {tensor + scalar ? flop(tensor + scalar) : '–'}
      </td>
      <td class="num">{ns ? duration(ns / 1000) : '–'}</td>
      <td class="num" title={fix(dram)}>
        {dram ? human(dram) : '–'}
      </td>
    </>
  );
}
