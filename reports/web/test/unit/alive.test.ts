// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { everything, grouped, heldBy, layerOf, matching, REST, rowsAt, total } from '../../src/alive/rows';
import { tiles } from '../../src/alive/tiles';
import type { Block, MarkView, StepView } from '../../src/data/types';
import type { RoleWord } from '../../src/data/layout';

const block = (role: number, module: string, bytes: number, name = ''): Block => ({
  role,
  module,
  bytes,
  name,
  count: 1,
  saved: false,
  phase: 1,
  op: 'aten::mm',
  dtype: 'float32',
  shape: '[2]',
  source: '',
  ageUs: 5,
});
const step = (blocks: Block[]) => ({ blocks }) as StepView;
const mark = (kind: string, roles: number[], cells: [number, string, number][] = []) =>
  ({
    kind,
    roles,
    bytes: roles.reduce((a, b) => a + b, 0),
    cells: cells.map(([role, module, bytes]) => ({ role, module, bytes, blocks: 1 })),
  }) as MarkView;
const roles = ['parameters', 'gradients'].map((title) => ({ key: title, title })) as RoleWord[];

describe('the rows of a mark', () => {
  it('are its blocks at the peak', () => {
    const rows = rowsAt(step([block(0, 'a', 8), block(1, 'b', 4)]), mark('peak', [8, 4]));
    expect(rows.map((row) => [row.role, row.bytes])).toEqual([
      [0, 8],
      [1, 4],
    ]);
  });
  it('always add up to its bytes', () => {
    const peak = mark(
      'peak',
      [100, 7],
      [
        [0, 'a', 60],
        [0, 'b c', 30],
      ],
    );
    const rows = rowsAt(step([block(0, 'a', 50)]), peak);
    expect(total(rows)).toBe(107);
    const rest = rows.filter((row) => row.name === REST);
    expect(rest.map((row) => [row.role, row.module, row.bytes])).toEqual([
      [0, 'b c', 30],
      [0, 'a', 10],
      [0, '', 10],
    ]);
    expect(rows.find((row) => row.role === 1)).toMatchObject({ name: '', bytes: 7 });
    expect(total(grouped(rows))).toBe(107);
  });
  it('are its sums by role and module elsewhere, or by role alone', () => {
    expect(total(rowsAt(step([block(0, 'a', 50)]), mark('end', [9, 0], [[0, 'x', 9]])))).toBe(9);
    const bare = rowsAt(step([]), mark('end', [9, 3]));
    expect(bare.map((row) => [row.role, row.bytes, row.name])).toEqual([
      [0, 9, ''],
      [1, 3, ''],
    ]);
  });
});

describe('the table', () => {
  const rows = rowsAt(
    step([block(0, 'h.1.mlp', 8, 'h.1.mlp.weight'), block(1, 'h.10.mlp', 4)]),
    mark('peak', [8, 4]),
  );
  it('finds every word somewhere', () => {
    expect(matching(rows, { ...everything, words: 'h.1 PARAM' }, roles)).toHaveLength(1);
    expect(matching(rows, { ...everything, words: 'nothing' }, roles)).toHaveLength(0);
  });
  it('a layer is not the one whose number begins like it', () => {
    const found = matching(rows, { ...everything, module: 'h.1' }, roles);
    expect(found.map((row) => row.module)).toEqual(['h.1.mlp']);
  });
});

it('a layer is a module up to its first number', () => {
  expect(layerOf('h.3.mlp.c_fc')).toBe('h.3');
  expect(layerOf('encoder.layer.11.attn')).toBe('encoder.layer.11');
  expect(layerOf('after h.0.mlp')).toBe('after h.0');
  expect(layerOf('lm_head')).toBe('lm_head');
  expect(layerOf('conv2d')).toBe('conv2d');
  expect(layerOf('')).toBe('');
});

it('the treemap holds every byte', () => {
  const blocks = Array.from({ length: 200 }, (_, i) =>
    block(i % 2, `h.${i % 30}.x${i}`, 1 + i * i),
  );
  const sums = [0, 0];
  for (const { role, bytes } of blocks) sums[role] += bytes;
  const rows = rowsAt(step(blocks), mark('peak', sums));
  const leaves = tiles(rows, 1200, 400).flatMap((tile) => tile.leaves());
  expect(leaves.reduce((sum, leaf) => sum + leaf.value!, 0)).toBe(total(rows));
});

describe('who holds a block', () => {
  const words = ['activation', 'gradient', 'input', 'unattributed'].map((key) => ({ key }));
  const holder = (role: number, saved: boolean) =>
    heldBy({ ...rowsAt(step([block(role, 'a', 8)]), mark('peak', []))[0], saved }, words as RoleWord[]);
  it('follows from its role, and autograd stands beside', () => {
    expect(holder(0, true)).toBe('autograd');
    expect(holder(1, false)).toBe('a .grad');
    expect(holder(2, true)).toBe('the program, autograd');
    expect(holder(3, false)).toBe('not known');
  });
});
