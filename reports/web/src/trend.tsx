// SPDX-License-Identifier: Apache-2.0
// Across steps: the peak and the end of each step, and what each role holds there.
import { useMemo } from 'preact/hooks';
import { niceStep, placesFor } from './canvas';
import type { Series } from './data/types';
import { fix, human, inUnit, raw, signed, unitFor } from './format';
import { pixelColumns } from './pyramid';
import { Section, Swatch, usePage, useWidth } from './ui';

const GROWTH = 3; // steps in a row, as analysis/verdicts.cpp

function growsAtEnd(values: Float64Array): boolean {
  const n = values.length;
  if (n <= GROWTH) return false;
  for (let i = n - GROWTH; i < n; i++) if (values[i] <= values[i - 1]) return false;
  return true;
}

export function Trend({ device }: { device: string }) {
  const { run } = usePage();
  const peaks = useMemo(() => run.series(device, 'peak'), [run, device]);
  const ends = useMemo(() => run.series(device, 'end'), [run, device]);
  return (
    <Section id="trend" title="Across steps" take={<Takeaway peaks={peaks} ends={ends} />}>
      {run.steps > 1 && (
        <div class="two">
          <Chart title="Peak of each step" series={peaks} />
          <Chart title="Alive at the end of each step" series={ends} />
        </div>
      )}
      <Table peaks={peaks} ends={ends} />
    </Section>
  );
}

interface Both {
  peaks: Series;
  ends: Series;
}

function Takeaway({ peaks, ends }: Both) {
  const { run } = usePage();
  const n = run.steps;
  if (n === 1) return <>One step was recorded: there is no trend to see.</>;
  const highest = peaks.pyramid.argmax(0, n);
  const change = ends.total[n - 1] - ends.total[0];
  return (
    <>
      {fix(n)} steps. The highest peak is {human(peaks.total[highest])} in step{' '}
      {fix(run.stepIndex(highest))}.{' '}
      {change === 0
        ? 'The last step ends with as many bytes as the first.'
        : `The last step ends with ${human(Math.abs(change))} ${change > 0 ? 'more' : 'less'} than the first.`}
    </>
  );
}

const HEIGHT = 220;
const LEFT = 68;
const RIGHT = 8;
const TOP = 16;
const BOTTOM = 28;

function Chart({ title, series }: { title: string; series: Series }) {
  const { run } = usePage();
  const [box, width] = useWidth<HTMLDivElement>();
  const n = run.steps;
  const plotWidth = Math.max(10, width - LEFT - RIGHT);
  const view = useMemo(() => {
    const positions = Float64Array.from({ length: n }, (_, i) => i);
    const shown =
      n > plotWidth
        ? [...pixelColumns(positions, series.pyramid, 0, n, plotWidth)]
        : [...positions];
    const values = shown.map((i) => series.total[i]);
    const low = values.reduce((a, b) => Math.min(a, b), Infinity);
    const high = values.reduce((a, b) => Math.max(a, b), 0);
    if (low === high) return { shown, values, low: 0, high: high * 1.2 || 1 };
    const pad = Math.max((high - low) * 0.12, 512);
    return { shown, values, low: Math.max(0, low - pad), high: high + pad };
  }, [series, plotWidth]);
  const x = (position: number) => LEFT + ((position + 0.5) / n) * plotWidth;
  const y = (bytes: number) =>
    HEIGHT - BOTTOM - ((bytes - view.low) / (view.high - view.low)) * (HEIGHT - BOTTOM - TOP);
  const path = view.values
    .map((bytes, k) => `${k ? 'L' : 'M'}${x(view.shown[k]).toFixed(1)},${y(bytes).toFixed(1)}`)
    .join('');
  const unit = unitFor(view.high);
  const step = niceStep((view.high - view.low) / unit.size, 4) * unit.size;
  const digits = placesFor(step / unit.size);
  const levels: number[] = [];
  for (let b = Math.ceil(view.low / step) * step; b < view.high; b += step) levels.push(b);
  const every = Math.max(1, niceStep(n, width < 480 ? 4 : 6));
  const ticks: number[] = [];
  for (let position = 0; position < n; position += every) ticks.push(position);
  return (
    <div ref={box}>
      <h3>
        {title}, {unit.name}
      </h3>
      {width > 0 && (
        <svg width={width} height={HEIGHT} role="img" aria-label={`${title}, a line`}>
          {levels.map((bytes) => (
            <g key={bytes}>
              <line class="gridline" x1={LEFT} x2={width - RIGHT} y1={y(bytes)} y2={y(bytes)} />
              <text x={LEFT - 8} y={y(bytes) + 4} text-anchor="end">
                {fix(bytes / unit.size, digits)}
              </text>
            </g>
          ))}
          {ticks.map((position) => (
            <text key={position} x={x(position)} y={HEIGHT - 8} text-anchor="middle">
              {(position ? '' : 'step ') + fix(run.stepIndex(position))}
            </text>
          ))}
          <path d={path} class="trend-line" />
          {n <= 40 &&
            view.values.map((bytes, k) => (
              <circle key={k} class="trend-dot" cx={x(view.shown[k])} cy={y(bytes)} r={2.5}>
                <title>{`step ${run.stepIndex(view.shown[k])}: ${human(bytes)} = ${raw(bytes)}`}</title>
              </circle>
            ))}
        </svg>
      )}
      <p class="caption">
        {view.low > 0 && 'The scale does not start at zero. '}
        {n > plotWidth && 'The highest step in each pixel column.'}
      </p>
    </div>
  );
}

function Table({ peaks, ends }: Both) {
  const { run } = usePage();
  const n = run.steps;
  // What grows only because it becomes known is no leak: the verdict has looked at that.
  const leaks = run.meta.verdicts.some(({ kind, tone }) => kind === 'leak' && tone === 'bad');
  const roles = run.meta.roles
    .map((_, role) => role)
    .filter((role) => peaks.roles[role].some(Boolean) || ends.roles[role].some(Boolean));
  const most = Math.max(...peaks.total, ...ends.total);
  const unit = unitFor(most);
  const amount = (bytes: number) => (
    <span class={bytes === 0 ? 'zero' : ''} title={raw(bytes)}>
      {bytes === 0 ? '–' : inUnit(bytes, unit)}
    </span>
  );
  const highest = (values: Float64Array) => values.reduce((a, b) => Math.max(a, b), 0);
  const row = (title: preact.ComponentChildren, peak: Float64Array, end: Float64Array) => {
    const change = end[n - 1] - end[0];
    const grows = leaks && growsAtEnd(end);
    return (
      <>
        <th scope="row">{title}</th>
        <td class="num">{amount(highest(peak))}</td>
        <td class="num">{amount(peak[n - 1])}</td>
        <td class="num">{amount(end[0])}</td>
        <td class="num">{amount(end[n - 1])}</td>
        <td class="num" title={raw(change)}>
          {change === 0 ? '0' : signed(change)}
        </td>
        <td class="c-why">
          {grows ? <b class="alarm">grew in each of the last {GROWTH} steps</b> : ''}
        </td>
      </>
    );
  };
  return (
    <div class="scroll flat trend-table" tabIndex={0} role="region" aria-label="Roles across steps">
      <table class="grid">
        <thead>
          <tr>
            <th scope="col">role, {unit.name}</th>
            <th scope="col" class="num">
              at the peaks, most
            </th>
            <th scope="col" class="num">
              at the last peak
            </th>
            <th scope="col" class="num">
              end of step {fix(run.stepIndex(0))}
            </th>
            <th scope="col" class="num">
              end of step {fix(run.stepIndex(n - 1))}
            </th>
            <th scope="col" class="num">
              change
            </th>
            <th scope="col">growth</th>
          </tr>
        </thead>
        <tbody>
          {roles.map((role) => (
            <tr key={role}>
              {row(
                <>
                  <Swatch role={role} />
                  {run.meta.roles[role].title}
                </>,
                peaks.roles[role],
                ends.roles[role],
              )}
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr class="sum">{row('sum', peaks.total, ends.total)}</tr>
        </tfoot>
      </table>
    </div>
  );
}
