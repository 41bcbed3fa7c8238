// SPDX-License-Identifier: Apache-2.0
// The roofline: what each operator does in a second over the work for each byte that it moves.
import type { RooflinePoint } from './data/layout';
import { clean, duration, fix, flop, flopRate, human } from './format';
import { usePage, useWidth } from './ui';

const HEIGHT = 320;
const LEFT = 84;
const RIGHT = 14;
const TOP = 18;
const BOTTOM = 40;
const GLYPH = 7.8; // pixels, of bold text

interface Dot extends RooflinePoint {
  x: number;
  y: number;
  r: number;
}
interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}
interface Label {
  text: string;
  x: number;
  y: number;
  leader: [number, number, number, number] | null;
}

const crosses = (a: Box, b: Box) =>
  a.left < b.right && a.right > b.left && a.top < b.bottom && a.bottom > b.top;

/** Beside, over or under its dot, the first place where nothing stands; none where all are taken. */
function placed(dots: Dot[], taken: Box[], inside: Box): Label[] {
  const out: Label[] = [];
  for (const dot of dots) {
    const text = clean(dot.op).replace('aten::', '');
    const width = text.length * GLYPH;
    const places = [
      [dot.r + 5, 4],
      [-dot.r - 5 - width, 4],
      [-width / 2, -dot.r - 6],
      [-width / 2, dot.r + 15],
      [dot.r + 3, dot.r + 14],
      [-dot.r - width, -dot.r - 4],
      [-width / 2, dot.r + 32],
    ];
    for (const [dx, dy] of places) {
      const x = dot.x + dx;
      const y = dot.y + dy;
      const box = { left: x, top: y - 11, right: x + width, bottom: y + 3 };
      if (box.left < inside.left || box.right > inside.right) continue;
      if (box.top < inside.top || box.bottom > inside.bottom) continue;
      if (taken.some((other) => crosses(other, box))) continue;
      taken.push(box);
      const far = dy > dot.r + 20;
      out.push({ text, x, y, leader: far ? [dot.x, dot.y + dot.r, dot.x, box.top] : null });
      break;
    }
  }
  return out;
}

/** Powers of ten around the values. */
function decades(values: number[]): [number, number] {
  const logs = values.map(Math.log10);
  return [Math.floor(Math.min(...logs) - 0.1), Math.ceil(Math.max(...logs) + 0.1)];
}
const between = ([from, to]: [number, number]) =>
  Array.from({ length: to - from + 1 }, (_, i) => 10 ** (from + i));

export function Roofline() {
  const { run } = usePage();
  const { roofline: points, peak, bytes_per_second: bandwidth, arithmetic } = run.meta.utilization;
  const [box, width] = useWidth<HTMLDivElement>();
  if (points.length === 0 || peak === null || bandwidth === null) return null;
  const ridge = peak / bandwidth;
  const intensities = points.map((point) => point.flops / point.bytes);
  const rates = points.map((point) => point.flops / point.seconds);
  const across = decades([...intensities, ridge]);
  const up = decades([...rates, peak]);
  const x = (value: number) =>
    LEFT + ((Math.log10(value) - across[0]) / (across[1] - across[0])) * (width - LEFT - RIGHT);
  const y = (value: number) =>
    HEIGHT - BOTTOM - ((Math.log10(value) - up[0]) / (up[1] - up[0])) * (HEIGHT - BOTTOM - TOP);
  const most = Math.max(...points.map((point) => point.seconds));
  const dots: Dot[] = points.map((point, i) => ({
    ...point,
    x: x(intensities[i]),
    y: y(rates[i]),
    r: 3 + 11 * Math.sqrt(point.seconds / most),
  }));
  const taken = dots.map(({ x, y, r }) => ({ left: x - r, right: x + r, top: y - r, bottom: y + r }));
  taken.push({ left: width - RIGHT - 170, right: width, top: y(peak) - 20, bottom: y(peak) + 4 });
  const inside = { left: LEFT, right: width - RIGHT, top: TOP, bottom: HEIGHT - BOTTOM };
  const labels = width > 0 ? placed(dots, taken, inside) : [];
  // The slope begins where it enters the picture.
  const first = Math.max(10 ** across[0], 10 ** up[0] / bandwidth);
  const roof = `${x(first)},${y(first * bandwidth)} ${x(ridge)},${y(peak)} ${width - RIGHT},${y(peak)}`;
  return (
    <div ref={box} class="roofline">
      <h3 class="next">Roofline</h3>
      {width > 0 && (
        <svg
          width={width}
          height={HEIGHT}
          role="img"
          aria-label={`Roofline of ${points.length} operators; most time in ${clean(points[0].op)}`}
        >
          {between(up).map((rate) => (
            <g key={rate}>
              <line class="gridline" x1={LEFT} x2={width - RIGHT} y1={y(rate)} y2={y(rate)} />
              <text x={LEFT - 8} y={y(rate) + 4} text-anchor="end">
                {flopRate(rate)}
              </text>
            </g>
          ))}
          {between(across).map((intensity) => (
            <g key={intensity}>
              <line
                class="gridline"
                x1={x(intensity)}
                x2={x(intensity)}
                y1={TOP}
                y2={HEIGHT - BOTTOM}
              />
              <text x={x(intensity)} y={HEIGHT - BOTTOM + 18} text-anchor="middle">
                {intensity >= 1 ? fix(intensity) : String(Number(intensity.toPrecision(1)))}
              </text>
            </g>
          ))}
          <text x={width - RIGHT} y={HEIGHT - 4} text-anchor="end">
            FLOP per byte moved
          </text>
          <polyline class="roof" points={roof} />
          <text class="strong" x={width - RIGHT - 4} y={y(peak) - 6} text-anchor="end">
            {flopRate(peak)} {arithmetic}
          </text>
          {dots.map((dot) => (
            <circle key={dot.op} class="roof-dot" cx={dot.x} cy={dot.y} r={dot.r}>
              <title>
                {`${clean(dot.op)}\n${flop(dot.flops)} in ${duration(dot.seconds * 1e6)}, ` +
                  `${human(dot.bytes)} moved`}
              </title>
            </circle>
          ))}
          {labels.map((label) => (
            <g key={label.text}>
              {label.leader && (
                <line
                  class="leader"
                  x1={label.leader[0]}
                  y1={label.leader[1]}
                  x2={label.leader[2]}
                  y2={label.leader[3]}
                />
              )}
              <text class="strong" x={label.x} y={label.y}>
                {label.text}
              </text>
            </g>
          ))}
        </svg>
      )}
      <p class="caption">
        A dot’s area is its time. On the slope ({human(bandwidth)}/s) an operator waits for memory;
        under the flat part, for arithmetic. The ridge is at {fix(ridge)} FLOP a byte.
      </p>
    </div>
  );
}
