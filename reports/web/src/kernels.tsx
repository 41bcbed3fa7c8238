// SPDX-License-Identifier: Apache-2.0
// Kernels by name, of the step that recorded them.
import { useState } from 'preact/hooks';
import { ExecutedCells, ExecutedHeads } from './executed';
import { duration, fix, percent } from './format';
import { Name, usePage } from './ui';

const FEW = 6;
const ON_PAPER = 15; // rows, where nothing can be opened

export function Kernels() {
  const { run, printing } = usePage();
  const [all, setAll] = useState(false);
  const { step, rows } = run.meta.kernels;
  if (rows.length === 0) return null;
  const time = rows.reduce((sum, row) => sum + row.executed.ns, 0);
  const counted = rows.some(({ executed: e }) => e.tensor + e.scalar + e.dram > 0);
  const shown = rows.slice(0, printing ? ON_PAPER : all ? rows.length : FEW);
  return (
    <>
      <h3>Kernels of step {step}</h3>
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
            {shown.map((row) => (
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
                <td class="num">{time ? percent(row.executed.ns / time) : '–'}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rows.length > FEW && (
        <button class="link more" onClick={() => setAll(!all)}>
          {all ? 'Show fewer' : `Show ${fix(rows.length - FEW)} more`}
        </button>
      )}
    </>
  );
}
