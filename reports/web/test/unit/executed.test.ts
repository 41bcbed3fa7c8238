// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import type { Word } from '../../src/data/layout';
import type { Executed, OperatorRow, StepView } from '../../src/data/types';
import { addExecuted, byFormat, formatsText, nothing } from '../../src/executed';
import { flop } from '../../src/format';

const words: Word[] = ['tensor bf16', 'tensor tf32', 'scalar fp32'].map((title) => ({
  key: title.replace(' ', '_'),
  title,
  meaning: '',
}));
const executed = (formats: number[]): Executed => ({ tensor: 0, scalar: 0, ns: 0, dram: 0, formats });
const step = (rows: [phase: number, formats: number[]][]) =>
  ({
    operators: rows.map(([phase, formats]) => ({ phase, executed: executed(formats) }) as OperatorRow),
  }) as StepView;

it('formats are summed over operators, by phase, the most first', () => {
  const rows = byFormat(words, 3, step([[1, [5, 1, 0]], [2, [10, 0, 0]], [2, [0, 30, 0]]]));
  expect(rows.map((row) => [row.title, row.flops, row.phases])).toEqual([
    ['tensor tf32', 31, [0, 1, 30]],
    ['tensor bf16', 15, [0, 5, 10]],
  ]);
  expect(byFormat(words, 3, step([[1, [0, 0, 0]]]))).toEqual([]);
});

it('an operator says its formats, the most first', () => {
  expect(formatsText(words, executed([2e12, 0, 3e12]))).toBe(`scalar fp32 ${flop(3e12)}, tensor bf16 ${flop(2e12)}`);
  expect(formatsText(words, executed([0, 0, 0]))).toBe('');
  expect(formatsText(words, nothing())).toBe('');
});

it('sums of operators begin with nothing', () => {
  const sum = nothing();
  addExecuted(sum, executed([1, 2, 0]));
  addExecuted(sum, { ...executed([1, 0, 4]), tensor: 7 });
  expect(sum).toEqual({ tensor: 7, scalar: 0, ns: 0, dram: 0, formats: [2, 2, 4] });
});
