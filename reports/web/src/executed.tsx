// SPDX-License-Identifier: Apache-2.0
// What hardware counters told, beside the formulas.
import type { Executed, StepView } from './data/types';
import { duration, fix, flop, human, percent, signedPercent } from './format';

export const nothing = (): Executed => ({ tensor: 0, scalar: 0, ns: 0, dram: 0 });
export function addExecuted(sum: Executed, part: Executed) {
  sum.tensor += part.tensor;
  sum.scalar += part.scalar;
  sum.ns += part.ns;
  sum.dram += part.dram;
}
export const isCounted = (one: Executed) => one.tensor + one.scalar + one.ns + one.dram > 0;

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
    </>
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
  const { tensor, scalar, ns, dram } = executed;
  const kinds = `tensor cores ${fix(tensor)}, scalar ${fix(scalar)}`;
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
