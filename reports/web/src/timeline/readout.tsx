// SPDX-License-Identifier: Apache-2.0
// The bytes under the cursor, role by role in the order of the stack: also the legend, and where
// one role is shown alone.
import type { Reserve, StepView, Timeline } from '../data/types';
import { fix, inUnit, moment, raw, unitFor } from '../format';
import { ModuleName, Name, Swatch, usePage } from '../ui';

export interface ReadoutProps {
  step: StepView;
  data: Timeline;
  cursor: number;
  solo: number;
  onSolo: (role: number) => void;
  off: ReadonlySet<number>;
  onOff: (off: ReadonlySet<number>) => void;
}

export function Readout({ step, data, cursor, solo, onSolo, off, onOff }: ReadoutProps) {
  const { run } = usePage();
  const unit = unitFor(data.total[data.highest]);
  const roles = run.meta.roles.map((_, role) => role);
  const used = roles.filter((role) => data.roles[role].some((bytes) => bytes !== 0));
  const unused = roles.filter((role) => !used.includes(role));
  const events = step.allocations + step.frees;
  const phase = run.meta.phases[data.phase[cursor]].title;
  const microStep = step.microSteps > 1 ? `, micro-step ${data.microStep[cursor] + 1}` : '';
  return (
    <aside class="readout" aria-label="Bytes at the cursor">
      <div class="readout-head">
        <div>
          <b>{moment(data.times[cursor])}</b>
          <span>{phase + microStep}</span>
        </div>
        <div class="num">
          <b>
            {inUnit(data.total[cursor], unit)} {unit.name}
          </b>
          <span>{raw(data.total[cursor])}</span>
        </div>
      </div>
      <table>
        <caption class="hidden">Bytes by role at the cursor</caption>
        <thead>
          <tr>
            <th scope="col">role</th>
            <th scope="col" class="num">
              {unit.name}
            </th>
            <th scope="col" class="num">
              bytes
            </th>
          </tr>
        </thead>
        <tbody>
          {used.reverse().map((role) => {
            const { title, meaning } = run.meta.roles[role];
            const bytes = data.roles[role][cursor];
            const isOff = solo >= 0 ? solo !== role : off.has(role);
            const toggle = () => {
              const next = new Set(off);
              if (!next.delete(role)) next.add(role);
              onSolo(-1);
              onOff(next);
            };
            const faint = isOff ? 'faint ' : '';
            return (
              <tr key={role} class={faint + (bytes ? '' : 'zero')}>
                <th scope="row">
                  <button
                    class="toggle"
                    aria-pressed={!off.has(role)}
                    aria-label={`Draw ${title}`}
                    title={off.has(role) ? 'Draw it again' : 'Leave it out'}
                    onClick={toggle}
                  >
                    <Swatch role={role} />
                  </button>
                  <button
                    aria-pressed={solo === role}
                    title={`${meaning}\n${solo === role ? 'Show the whole stack' : 'Show it alone'}`}
                    onClick={() => onSolo(solo === role ? -1 : role)}
                  >
                    {title}
                  </button>
                </th>
                <td class="num">{inUnit(bytes, unit)}</td>
                <td class="num raw">{fix(bytes)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {data.reserve && <ReserveTable reserve={data.reserve} cursor={cursor} />}
      {unused.length > 0 && (
        <details class="unused">
          <summary>{unused.length} more roles are 0 throughout</summary>
          {unused.map((role) => run.meta.roles[role].title).join(', ')}
        </details>
      )}
      <p class="event">
        {data.length < events ? (
          <>
            <b>moment {fix(cursor + 1)}</b> of {fix(data.length)} kept; {fix(events)} events
            happened
          </>
        ) : (
          <>
            <b>event {fix(cursor + 1)}</b> of {fix(data.length)}
          </>
        )}
        <br />
        <ModuleName name={run.text(data.module[cursor])} />{' '}
        {data.op[cursor] > 0 && <Name text={run.text(data.op[cursor])} />}
      </p>
    </aside>
  );
}

/** What a caching allocator has around the blocks. */
function ReserveTable({ reserve, cursor }: { reserve: Reserve; cursor: number }) {
  const reserved = reserve.reserved[cursor];
  const free = reserved - reserve.active[cursor];
  const rows: [name: string, bytes: number, meaning: string][] = [
    ['active', reserve.active[cursor], 'blocks as the allocator rounds them'],
    ['reserved', reserved, 'in segments: the dashed line'],
    ['free in segments', free, 'reserved and not active'],
    ['largest free block', reserve.largestFree[cursor], 'what one allocation can get of it'],
  ];
  const unit = unitFor(reserve.reserved.reduce((most, bytes) => Math.max(most, bytes), 0));
  return (
    <table class="reserve">
      <caption>Caching allocator</caption>
      <tbody>
        {rows.map(([name, bytes, meaning]) => (
          <tr key={name} title={meaning}>
            <th scope="row">{name}</th>
            <td class="num">{inUnit(bytes, unit)}</td>
            <td class="num exact">{fix(bytes)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
