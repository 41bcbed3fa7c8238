// SPDX-License-Identifier: Apache-2.0
// Drawing on canvases: set-up, hatching, the stack of bytes.
import type { Column } from './data/columns';

export const FONT = '500 12px "Geist Variable", system-ui, sans-serif';
export const FONT_BOLD = '600 12px "Geist Variable", system-ui, sans-serif';

export const cssValue = (name: string) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A cleared context in CSS pixels; at most two device pixels for each. */
export function prepare(canvas: HTMLCanvasElement, width: number, height: number) {
  const density = Math.min(2, devicePixelRatio || 1);
  const w = Math.round(width * density);
  const h = Math.round(height * density);
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = width + 'px';
    canvas.style.height = height + 'px';
  }
  const g = canvas.getContext('2d')!;
  g.setTransform(density, 0, 0, density, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = FONT;
  g.textBaseline = 'alphabetic';
  g.lineWidth = 1;
  return g;
}
export type Context = CanvasRenderingContext2D;

export function hatch(g: Context, x: number, y: number, w: number, h: number, color: string) {
  g.save();
  g.beginPath();
  g.rect(x, y, w, h);
  g.clip();
  g.strokeStyle = color;
  g.beginPath();
  for (let k = Math.floor((x - h) / 4) * 4; k < x + w + h; k += 4) {
    g.moveTo(k, y + h);
    g.lineTo(k + h, y);
  }
  g.stroke();
  g.restore();
}

export function line(g: Context, x0: number, y0: number, x1: number, y1: number) {
  g.beginPath();
  g.moveTo(x0, y0);
  g.lineTo(x1, y1);
  g.stroke();
}

export interface StackOptions {
  values: Column[]; // by role
  index: Int32Array; // the state in each pixel column
  order: number[]; // roles, from the bottom
  colors: string[]; // by role
  hatched: number; // this role is hatched; -1: none
  left: number;
  y: (bytes: number) => number;
  gap: string | null; // colour of the hairline between bands
}

/** A stack of steps, one state a pixel column. */
export function drawStack(g: Context, options: StackOptions) {
  const { values, index, left, y } = options;
  const width = index.length;
  const base = new Float64Array(width);
  for (const role of options.order) {
    const bytes = values[role];
    if (!index.some((i) => bytes[i] > 0)) continue;
    const band = new Path2D();
    let level = y(base[0]);
    band.moveTo(left, level);
    for (let x = 1; x < width; x++) {
      const next = y(base[x]);
      if (next === level) continue;
      band.lineTo(left + x, level);
      band.lineTo(left + x, next);
      level = next;
    }
    band.lineTo(left + width, level);
    for (let x = 0; x < width; x++) base[x] += bytes[index[x]];
    const top = upperEdge(band, base, options);
    band.closePath();
    g.fillStyle = options.colors[role];
    g.fill(band);
    if (role === options.hatched) hatchInside(g, band, options);
    if (options.gap) {
      g.strokeStyle = options.gap;
      g.stroke(top);
    }
  }
}

/**
 * Leads the band back along its upper edge. The hairline follows flat runs of 3 pixels or more: on
 * spikes it would eat the band itself.
 */
function upperEdge(band: Path2D, base: Float64Array, options: StackOptions): Path2D {
  const { left, y } = options;
  const hairline = new Path2D();
  let end = base.length;
  let level = y(base[end - 1]);
  const flat = (from: number, to: number) => {
    if (to - from < 3) return;
    hairline.moveTo(left + from, level);
    hairline.lineTo(left + to, level);
  };
  band.lineTo(left + end, level);
  for (let x = base.length - 2; x >= 0; x--) {
    const next = y(base[x]);
    if (next === level) continue;
    band.lineTo(left + x + 1, level);
    band.lineTo(left + x + 1, next);
    flat(x + 1, end);
    end = x + 1;
    level = next;
  }
  band.lineTo(left, level);
  flat(0, end);
  return hairline;
}

function hatchInside(g: Context, band: Path2D, options: StackOptions) {
  g.save();
  g.clip(band);
  const height = options.y(0);
  hatch(g, options.left, 0, options.index.length, height, cssValue('--surface'));
  g.restore();
}

/** 1, 2 or 5 times a power of ten, so that about `count` of it make the span. */
export function niceStep(span: number, count: number): number {
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((k) => k * power >= rough * 0.999)!;
}
/** Digits behind the point that tell multiples of a nice step apart. */
export const placesFor = (step: number) =>
  Math.max(0, Math.min(3, Math.ceil(-Math.log10(step) - 1e-9)));
