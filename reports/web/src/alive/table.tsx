// SPDX-License-Identifier: Apache-2.0
// The table of what was alive: searched, filtered, sorted; only the rows in view are in the page.
import { useMemo, useRef, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import type { StepView } from '../data/types';
import { clean, duration, fix, human, inUnit, percent, raw, unitFor } from '../format';
import { Choice, ModuleName, Name, Swatch, usePage } from '../ui';
import { everything, grouped, heldBy, matching, REST, total, type Filter, type Row } from './rows';

const ROW = 28;
const VISIBLE = 12;
const SPARE = 6;
const ON_PAPER = 40; // rows

interface ColumnSpec {
  key: keyof Row;
  title: string;
  num?: boolean;
  cell: (row: Row) => ComponentChildren;
}

export interface TableProps {
  step: StepView;
  rows: Row[];
  filter: Filter;
  onFilter: (filter: Filter) => void;
  label: string;
}

export function AliveTable({ step, rows, filter, onFilter, label }: TableProps) {
  const { run, printing } = usePage();
  const hasBlocks = rows.some((row) => row.phase >= 0);
  const [single, setSingle] = useState(false);
  const [sort, setSort] = useState<keyof Row>('bytes');
  const [down, setDown] = useState(true);
  const [top, setTop] = useState(0);
  const scroll = useRef<HTMLDivElement>(null);
  const shown = useMemo(() => (single && hasBlocks ? rows : grouped(rows)), [rows, single]);
  const all = useMemo(() => total(rows), [rows]);
  const columns = useColumns(shown, single && hasBlocks, hasBlocks);
  const view = useMemo(() => {
    const found = matching(shown, filter, run.meta.roles);
    const sign = down ? -1 : 1;
    const value = (row: Row) => (sort === 'saved' ? heldBy(row, run.meta.roles) : row[sort]);
    return found.sort((a, b) => {
      const x = value(a);
      const y = value(b);
      return (x < y ? -1 : x > y ? 1 : 0) * sign || b.bytes - a.bytes;
    });
  }, [shown, filter, sort, down]);

  const back = () => {
    if (scroll.current) scroll.current.scrollTop = 0;
    setTop(0);
  };
  const change = (next: Filter) => {
    onFilter(next);
    back();
  };
  const first = printing ? 0 : Math.max(0, Math.floor(top / ROW) - SPARE);
  const inView = printing ? ON_PAPER : VISIBLE + 2 * SPARE + 2;
  const last = Math.min(view.length, first + inView);
  const left = total(view.slice(last));
  const roles = [...new Set(shown.map((row) => row.role))].sort((a, b) => a - b);
  const sum = total(view);
  const width = columns.length + 2;
  const unit = unitFor(shown.reduce((most, row) => Math.max(most, row.bytes), 0));

  return (
    <div class="table">
      <div class="bar">
        <input
          type="search"
          placeholder="Search module, name, operator, dtype, shape"
          aria-label="Search what was alive"
          value={filter.words}
          onInput={(event) => change({ ...filter, words: event.currentTarget.value })}
        />
        <select
          aria-label="Role"
          value={filter.role}
          onChange={(event) => change({ ...filter, role: Number(event.currentTarget.value) })}
        >
          <option value={-1}>all roles</option>
          {roles.map((role) => (
            <option key={role} value={role}>
              {run.meta.roles[role].title}
            </option>
          ))}
        </select>
        {hasBlocks && (
          <Choice
            label="Rows"
            options={[
              ['groups', 'Groups'],
              ['blocks', 'Blocks'],
            ]}
            value={single ? 'blocks' : 'groups'}
            onChange={(value) => {
              setSingle(value === 'blocks');
              back();
            }}
          />
        )}
        <FilterChip filter={filter} onFilter={change} />
        <span class="count num">
          <b>{fix(view.length)}</b> of {fix(shown.length)} rows,{' '}
          <b title={raw(sum)} data-bytes={sum}>
            {human(sum)}
          </b>
          , {percent(all ? sum / all : 0)}
        </span>
      </div>
      <div
        class="scroll"
        ref={scroll}
        tabIndex={0}
        role="region"
        aria-label={label}
        style={{ maxHeight: `${VISIBLE * ROW + 32}px` }}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      >
        <table class={'grid' + (single ? ' single' : '')} aria-rowcount={view.length}>
          <thead>
            <tr>
              {columns.map((column) => (
                <th
                  key={column.key}
                  scope="col"
                  class={`c-${column.key}` + (column.num ? ' num' : '')}
                  aria-sort={sort === column.key ? (down ? 'descending' : 'ascending') : 'none'}
                >
                  <button
                    onClick={() => {
                      if (sort === column.key) setDown(!down);
                      else {
                        setSort(column.key);
                        setDown(Boolean(column.num));
                      }
                      back();
                    }}
                  >
                    {column.key === 'bytes' ? unit.name : column.title}
                    <i class="arrow" aria-hidden="true">
                      {sort === column.key ? (down ? '↓' : '↑') : ''}
                    </i>
                  </button>
                </th>
              ))}
              <th scope="col" class="num c-raw">
                bytes
              </th>
              <th scope="col" class="num c-share">
                share
              </th>
            </tr>
          </thead>
          <tbody>
            {first > 0 && <Spacer rows={first} width={width} />}
            {view.slice(first, last).map((row, i) => (
              <tr key={first + i} aria-rowindex={first + i + 1}>
                {columns.map((column) => (
                  <td key={column.key} class={`c-${column.key}` + (column.num ? ' num' : '')}>
                    {column.key === 'bytes' ? inUnit(row.bytes, unit) : column.cell(row)}
                  </td>
                ))}
                <td class="num raw c-raw">{fix(row.bytes)}</td>
                <td class="num c-share">{percent(all ? row.bytes / all : 0)}</td>
              </tr>
            ))}
            {last < view.length && !printing && <Spacer rows={view.length - last} width={width} />}
          </tbody>
        </table>
        {view.length === 0 && (
          <p class="none">
            Nothing matches.{' '}
            <button class="link" onClick={() => change(everything)}>
              Clear the filter
            </button>
          </p>
        )}
      </div>
      {printing && last < view.length && (
        <p class="note">
          {fix(view.length - last)} more rows hold {human(left)}.
        </p>
      )}
      {!hasBlocks && step.marks.length > 0 && (
        <p class="note">At this mark the recording holds sums by role and module, no blocks.</p>
      )}
    </div>
  );
}

const Spacer = ({ rows, width }: { rows: number; width: number }) => (
  <tr class="spacer" style={{ height: `${rows * ROW}px` }} aria-hidden="true">
    <td colSpan={width} />
  </tr>
);

function FilterChip({ filter, onFilter }: Pick<TableProps, 'filter' | 'onFilter'>) {
  if (filter.module === null && filter.op === null) return null;
  const text = [filter.module || 'no module', filter.op].filter(Boolean).join(' ');
  return (
    <button class="chip" onClick={() => onFilter({ ...filter, module: null, op: null })}>
      <bdi>{clean(text)}</bdi> <span aria-label="remove this filter">×</span>
    </button>
  );
}

function useColumns(rows: Row[], single: boolean, hasBlocks: boolean): ColumnSpec[] {
  const { run } = usePage();
  const title = (row: Row) => run.meta.roles[row.role].title;
  const columns: ColumnSpec[] = [
    {
      key: 'role',
      title: 'role',
      cell: (row) => (
        <>
          <Swatch role={row.role} />
          <span>{title(row)}</span>
        </>
      ),
    },
    {
      key: 'module',
      title: 'module',
      cell: (row) => (
        <>
          <ModuleName name={row.module} none={row.name === REST ? REST : 'no module'} />
          {row.name === REST && row.module !== '' && <span class="dimmed"> {REST}</span>}
        </>
      ),
    },
  ];
  const text = (key: 'op' | 'dtype' | 'shape' | 'name' | 'source', heading: string) =>
    columns.push({ key, title: heading, cell: (row) => row[key] && <Name text={row[key]} /> });
  if (single && rows.some((row) => row.name !== '' && row.name !== REST)) text('name', 'name');
  if (hasBlocks) {
    text('op', 'made by');
    text('dtype', 'dtype');
    text('shape', 'shape');
  }
  if (single) {
    columns.push(
      {
        key: 'phase',
        title: 'made in',
        cell: (row) => (row.phase < 0 ? '' : run.meta.phases[row.phase].title),
      },
      {
        key: 'saved',
        title: 'held by',
        cell: (row) => (row.name === REST ? '' : heldBy(row, run.meta.roles)),
      },
      {
        key: 'ageUs',
        title: 'age',
        num: true,
        cell: (row) => (row.ageUs < 0 ? '' : duration(row.ageUs)),
      },
    );
    if (rows.some((row) => row.source !== '')) text('source', 'source');
  }
  columns.push(
    { key: 'count', title: 'blocks', num: true, cell: (row) => (row.count ? fix(row.count) : '') },
    { key: 'bytes', title: 'bytes', num: true, cell: () => null },
  );
  return columns;
}
