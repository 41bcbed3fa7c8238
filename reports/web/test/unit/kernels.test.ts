// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import type { KernelRow } from '../../src/data/layout';
import { kernelTable } from '../../src/kernels';

const kernel = (name: string, ns: number, tensor = 0, dram = 0): KernelRow => ({
  name,
  ops: 'aten::mm',
  calls: 1,
  executed: { tensor, scalar: 0, ns, dram, formats: [tensor, 0] },
});
const many = (count: number) =>
  Array.from({ length: count }, (_, i) => kernel(`k${i}`, 1000 - i));

describe('the table of kernels', () => {
  it('shows the first rows, and says how many more there are', () => {
    const rows = many(10);
    const few = kernelTable({ step: 3, rows }, 6);
    expect(few.rows.map((row) => row.name)).toEqual(['k0', 'k1', 'k2', 'k3', 'k4', 'k5']);
    expect(few.rest).toBe(4);
    const all = kernelTable({ step: 3, rows }, rows.length);
    expect(all.rows).toHaveLength(10);
    expect(all.rest).toBe(4); // so that they can be hidden again
    expect(kernelTable({ step: 3, rows: many(6) }, 6).rest).toBe(0);
  });
  it('has shares of the time of all kernels, not only of those shown', () => {
    const rows = [kernel('gemm', 600), kernel('add', 300), kernel('fill', 100)];
    expect(kernelTable({ step: 0, rows }, 2).shares).toEqual([0.6, 0.3]);
  });
  it('has no shares where no kernel has a time', () => {
    expect(kernelTable({ step: 0, rows: [kernel('a', 0), kernel('b', 0)] }, 6).shares).toEqual([
      null,
      null,
    ]);
  });
  it('has the columns of counters where a kernel was counted, shown or not', () => {
    expect(kernelTable({ step: 0, rows: many(8) }, 6).counted).toBe(false);
    expect(kernelTable({ step: 0, rows: [...many(8), kernel('last', 1, 5)] }, 6).counted).toBe(true);
    expect(kernelTable({ step: 0, rows: [kernel('copy', 1, 0, 8)] }, 6).counted).toBe(true);
  });
  it('of no kernels is empty', () => {
    const none = kernelTable({ step: 0, rows: [] }, 6);
    expect(none).toEqual({ rows: [], shares: [], counted: false, rest: 0 });
  });
});
