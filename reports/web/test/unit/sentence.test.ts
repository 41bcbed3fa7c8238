// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { linked } from '../../src/answer';

const sections = (headline: string, module: string) =>
  linked(headline, module)
    .filter((part) => part.section)
    .map((part) => [part.text.replaceAll('\u00a0', ' '), part.section]);

it('every number leads to its place', () => {
  const headline =
    'Peak 1.64 GiB in step 3, backward of h.11.mlp; 64 % activations. Theory says 1.63 GiB ' +
    '(measured: -0.6 %). Checkpointing would save 0.9 GiB for +31 % FLOPs.';
  expect(sections(headline, 'h.11.mlp')).toEqual([
    ['1.64 GiB', 'timeline'],
    ['step 3', 'timeline'],
    ['64 %', 'peak'],
    ['1.63 GiB', 'theory'],
    ['\u22120.6 %', 'theory'],
    ['0.9 GiB', 'verdicts'],
    ['+31 %', 'verdicts'],
  ]);
});
it('a number in a module name is no number', () => {
  const module = 'x 5 GiB. Theory says 3 %';
  const headline = `Peak 2.0 MiB in step 0, forward of ${module}; 50 % gradients.`;
  expect(sections(headline, module)).toEqual([
    ['2.0 MiB', 'timeline'],
    ['step 0', 'timeline'],
    ['50 %', 'peak'],
  ]);
});
it('the parts are the sentence', () => {
  const headline = 'Peak 2.0 MiB in step 1; 41 % activations. Theory says 2.0 MiB (exact).';
  const text = linked(headline, '')
    .map((part) => part.text)
    .join('');
  expect(text.replaceAll('\u00a0', ' ')).toBe(headline);
});
