// SPDX-License-Identifier: Apache-2.0
// Kernels by name, of the step that recorded them.
import { useState } from 'preact/hooks';
import type { KernelRow, Meta } from './data/layout';
import { ExecutedCells, ExecutedHeads } from './executed';
import { duration, fix, percent } from './format';
import { Name, usePage } from './ui';

const FEW = 6;
const ON_PAPER = 15; // rows, where nothing can be opened

export interface KernelTable {
  rows: KernelRow[]; // as many as are shown, most time first
  shares: (number | null)[]; // of all kernels' time; null where none has a time
  counted: boolean; // counters were read kernel by kernel
  rest: number; // rows that are not shown unless asked for
}
export function kernelTable({ rows }: Meta['kernels'], most: number): KernelTable {
  const time = rows.reduce((sum, row) => sum + row.executed.ns, 0);
  const shown = rows.slice(0, most);
  return {
    rows: shown,
    shares: shown.map((row) => (time ? row.executed.ns / time : null)),
    counted: rows.some(({ executed: e }) => e.tensor + e.scalar + e.dram > 0),
    rest: Math.max(0, rows.length - FEW),
  };
}

export function Kernels() {
  const { run, printing } = usePage();
  const [all, setAll] = useState(false);
  const { kernels } = run.meta;
  if (kernels.rows.length === 0) return null;
  const most = printing ? ON_PAPER : all ? kernels.rows.length : FEW;
  const { rows, shares, counted, rest } = kernelTable(kernels, most);
  return (
    <>
      <h3>Kernels of step {kernels.step}</h3>
      <div class="scroll" tabIndex={0} role="region" aria-label="Kernels by name">
        <table class="grid work">
          <thead>
            <tr>
              <th scope="col">kernel</th>
              <th scope="col" class="num">
                calls
              </th>
              {counted ? (
                <ExecutedHeads />
              ) : (
                <th scope="col" class="num">
                  time
                </th>
              )}
              <th scope="col" class="num">
                share
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row, i) => (
              <tr key={row.name}>
                <th scope="row" title={`launched by ${row.ops}`}>
                  <Name text={row.name} />
                </th>
                <td class="num">{fix(row.calls)}</td>
                {counted ? (
                  <ExecutedCells executed={row.executed} />
                ) : (
                  <td class="num">{duration(row.executed.ns / 1000)}</td>
                )}
                <td class="num">{shares[i] === null ? '–' : percent(shares[i])}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rest > 0 && (
        <button class="link more" onClick={() => setAll(!all)}>
          {all ? 'Show fewer' : `Show ${fix(rest)} more`}
        </button>
      )}
    </>
  );
}
