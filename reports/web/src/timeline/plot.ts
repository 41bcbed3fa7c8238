// SPDX-License-Identifier: Apache-2.0
// Draws the timeline of one step: scale, stack, phases, marks, peak, limit, cursor.
import { cssValue, drawStack, FONT, FONT_BOLD, hatch, line, niceStep, placesFor } from '../canvas';
import type { Context } from '../canvas';
import type { MarkView, Span, StepView, Timeline } from '../data/types';
import { fix, human, unitFor } from '../format';
import { pixelColumns } from '../pyramid';
import type { Window } from './window';

export interface Frame {
  width: number;
  height: number;
  left: number;
  top: number;
  plotWidth: number;
  plotHeight: number;
}
export function frameFor(width: number, microSteps: number): Frame {
  const phone = width < 560;
  const top = microSteps > 1 ? 68 : 52; // room for the names of micro-steps
  const height = (phone ? 268 : 396) + top;
  const left = phone ? 44 : 56;
  return {
    width,
    height,
    left,
    top,
    plotWidth: Math.max(10, width - left - 1),
    plotHeight: height - top - 28,
  };
}

export interface Scene {
  frame: Frame;
  step: StepView;
  timeline: Timeline;
  window: Window;
  highest: number; // bytes at the upper edge
  solo: number; // the only role shown, or -1
  off: ReadonlySet<number>; // roles that are not drawn
  reserved: number[] | null; // bytes that the caching allocator held, by point
  cursor: number; // point
  drag: [number, number] | null;
  limit: { bytes: number; title: string } | null;
  colors: string[];
  hatched: number;
  phases: { key: string; title: string }[];
}

const RIBBON = 16;

class Plot {
  private readonly ink = cssValue('--ink');
  private readonly ink2 = cssValue('--ink2');
  private readonly rule = cssValue('--rule');
  private readonly surface = cssValue('--surface');

  constructor(
    private readonly g: Context,
    private readonly s: Scene,
  ) {}

  private get right() {
    return this.s.frame.left + this.s.frame.plotWidth;
  }
  private get bottom() {
    return this.s.frame.top + this.s.frame.plotHeight;
  }
  private get ribbonTop() {
    return this.s.frame.top - RIBBON - 8;
  }
  private x(time: number): number {
    const [begin, end] = this.s.window;
    return this.s.frame.left + ((time - begin) / (end - begin)) * this.s.frame.plotWidth;
  }
  private y(bytes: number): number {
    return this.bottom - (bytes / this.s.highest) * this.s.frame.plotHeight;
  }

  draw(): Int32Array {
    const { g, s } = this;
    const { left, top, plotWidth, plotHeight } = s.frame;
    this.scale();
    const index = pixelColumns(s.timeline.times, s.timeline.pyramid, ...s.window, plotWidth);
    g.save();
    g.beginPath();
    g.rect(left, top, plotWidth, plotHeight);
    g.clip();
    drawStack(g, {
      values: s.timeline.roles,
      index,
      order:
        s.solo >= 0
          ? [s.solo]
          : s.timeline.roles.map((_, role) => role).filter((role) => !s.off.has(role)),
      colors: s.colors,
      hatched: s.hatched,
      left,
      y: (bytes) => this.y(bytes),
      gap: this.surface,
    });
    g.restore();
    this.ribbon();
    this.marks();
    if (s.solo < 0) {
      this.reserved(index);
      this.limit();
      if (s.off.size === 0) this.peak();
    }
    this.cursor();
    this.selection();
    return index;
  }

  private scale() {
    const { g, s } = this;
    const { left, top, height, width } = s.frame;
    const unit = unitFor(s.timeline.total[s.timeline.highest]); // as in the readout
    const step = niceStep(s.highest / unit.size, 5) * unit.size;
    const digits = placesFor(step / unit.size);
    g.fillStyle = this.ink2;
    g.strokeStyle = this.rule;
    g.textAlign = 'right';
    for (let bytes = 0; bytes <= s.highest; bytes += step) {
      const y = Math.round(this.y(bytes)) + 0.5;
      line(g, left, y, this.right, y);
      g.fillText(fix(bytes / unit.size, digits), left - 8, y + 4);
    }
    g.fillText(unit.name, left - 8, top - 14);
    const [begin, end] = s.window;
    const ms = niceStep((end - begin) / 1000, width < 560 ? 4 : 8);
    const places = placesFor(ms);
    g.textAlign = 'center';
    let first = true;
    for (let k = Math.ceil(begin / 1000 / ms - 1e-9); k * ms * 1000 <= end; k++) {
      const x = this.x(k * ms * 1000);
      if (x > this.right - 16) continue;
      g.fillText(fix(k * ms, places) + (first ? ' ms' : ''), Math.max(left + 18, x), height - 8);
      first = false;
    }
  }

  /** Phases as ink tints: hue belongs to the roles. Recomputation is hatched. */
  private ribbon() {
    const { g, s } = this;
    for (const span of s.step.spans) {
      const from = Math.max(s.frame.left, this.x(span.begin));
      const to = Math.min(this.right, this.x(span.end));
      if (to <= from) continue;
      const key = s.phases[span.phase].key;
      g.fillStyle = cssValue(`--phase-${key}`);
      g.fillRect(from, this.ribbonTop, to - from, RIBBON);
      if (key === 'recompute') hatch(g, from, this.ribbonTop, to - from, RIBBON, this.ink);
    }
    for (const span of joined(s.step.spans, s.phases)) this.phaseLabel(span);
    this.microSteps();
  }

  private phaseLabel(span: Span) {
    const { g, s } = this;
    const { key, title } = s.phases[span.phase];
    if (key === 'other') return;
    const from = Math.max(s.frame.left, this.x(span.begin));
    const to = Math.min(this.right, this.x(span.end));
    const width = g.measureText(title).width;
    if (to - from < width + 14) return;
    const x = from + 6;
    if (key === 'backward') {
      g.fillStyle = cssValue('--phase-backward'); // a clear ground on hatched recomputation
      g.fillRect(x - 4, this.ribbonTop, width + 8, RIBBON);
    }
    g.fillStyle = key === 'optimizer' ? this.surface : this.ink;
    g.textAlign = 'left';
    g.fillText(title, x, this.ribbonTop + 12);
  }

  private microSteps() {
    const { g, s } = this;
    if (s.step.microSteps < 2) return;
    let labelEnd = 0;
    for (let k = 0; k < s.step.microSteps; k++) {
      const spans = s.step.spans.filter((span) => span.microStep === k);
      if (spans.length === 0) continue;
      const from = this.x(spans[0].begin);
      const to = this.x(spans[spans.length - 1].end);
      if (to < s.frame.left || from > this.right) continue;
      const x = Math.max(s.frame.left, from);
      if (k > 0 && from > s.frame.left) {
        g.strokeStyle = this.ink2;
        line(g, Math.round(x) + 0.5, this.ribbonTop - 16, Math.round(x) + 0.5, s.frame.top);
        this.dotted(x);
      }
      const text = `micro-step ${k + 1}`;
      const width = g.measureText(text).width;
      if (x < labelEnd || x + width > this.right || to - x < width * 0.6) continue;
      g.fillStyle = this.ink2;
      g.textAlign = 'left';
      g.fillText(text, x + (k > 0 ? 6 : 0), this.ribbonTop - 6);
      labelEnd = x + width + 12;
    }
  }

  private dotted(x: number) {
    const { g, s } = this;
    g.save();
    g.strokeStyle = this.ink2;
    g.globalAlpha = 0.5;
    g.setLineDash([2, 3]);
    line(g, Math.round(x) + 0.5, s.frame.top, Math.round(x) + 0.5, this.bottom);
    g.restore();
  }

  /** Small diamonds under the ribbon where the books are kept in full. */
  private marks() {
    const { g, s } = this;
    for (const mark of s.step.marks) {
      const at = this.x(mark.us);
      if (at < s.frame.left - 1 || at > this.right + 1 || mark.kind === 'peak') continue;
      const isEdge = mark.kind === 'start' || mark.kind === 'end';
      if (!isEdge) this.dotted(at);
      const x = Math.max(s.frame.left + 4, Math.min(this.right - 4, at));
      const y = s.frame.top - 4;
      g.fillStyle = mark.kind === 'oom' ? cssValue('--alarm') : this.ink;
      g.beginPath();
      g.moveTo(x, y - 4);
      g.lineTo(x + 4, y);
      g.lineTo(x, y + 4);
      g.lineTo(x - 4, y);
      g.closePath();
      g.fill();
    }
  }

  private limit() {
    const { g, s } = this;
    if (s.limit === null || s.limit.bytes > s.highest) return;
    const y = Math.round(this.y(s.limit.bytes)) + 0.5;
    const color = cssValue('--alarm');
    g.strokeStyle = color;
    line(g, s.frame.left, y, this.right, y);
    g.fillStyle = color;
    const title = s.frame.width < 560 ? s.limit.title.split(' ')[0] : s.limit.title;
    this.atTheSide(`${title} ${human(s.limit.bytes)}`, y + 14);
  }

  /** On the side where the peak's tag is not. */
  private atTheSide(text: string, y: number) {
    const { g, s } = this;
    const atLeft = this.x(s.timeline.times[s.timeline.highest]) > (s.frame.left + this.right) / 2;
    g.textAlign = atLeft ? 'left' : 'right';
    g.fillText(text, atLeft ? s.frame.left + 8 : this.right - 8, y);
  }

  /** A dashed line of steps, over the moments that are drawn. */
  private reserved(index: Int32Array) {
    const { g, s } = this;
    const { reserved } = s;
    if (!reserved || index.length === 0) return;
    const { left, top, plotWidth, plotHeight } = s.frame;
    g.save();
    g.beginPath();
    g.rect(left, top, plotWidth, plotHeight);
    g.clip();
    g.strokeStyle = this.ink;
    g.setLineDash([6, 4]);
    g.beginPath();
    let level = this.y(reserved[index[0]]);
    g.moveTo(left, level);
    for (let x = 1; x < index.length; x++) {
      const next = this.y(reserved[index[x]]);
      if (next === level) continue;
      g.lineTo(left + x, level);
      g.lineTo(left + x, next);
      level = next;
    }
    g.lineTo(left + index.length, level);
    g.stroke();
    g.restore();
    const most = index.reduce((bytes, i) => Math.max(bytes, reserved[i]), 0);
    if (most > s.highest) return;
    g.fillStyle = this.ink;
    // Not where the limit's own label stands.
    const shown = s.limit !== null && s.limit.bytes <= s.highest;
    const below = shown ? this.y(s.limit!.bytes) + 30 : 0;
    this.atTheSide('reserved ' + human(most), Math.max(this.y(most) - 6, below));
  }

  private peak() {
    const { g, s } = this;
    const point = s.timeline.highest;
    const x = this.x(s.timeline.times[point]);
    if (x < s.frame.left - 1 || x > this.right + 1) return;
    const bytes = s.timeline.total[point];
    const y = this.y(bytes);
    g.fillStyle = this.ink;
    g.beginPath();
    g.moveTo(x, y - 1);
    g.lineTo(x - 5, y - 9);
    g.lineTo(x + 5, y - 9);
    g.closePath();
    g.fill();
    const text = `peak ${human(bytes)}`;
    g.font = FONT_BOLD;
    const width = g.measureText(text).width + 14;
    const boxX = x + width + 12 > this.right ? x - width - 10 : x + 10;
    g.beginPath();
    g.roundRect(boxX, y - 18, width, 20, 3);
    g.fill();
    g.fillStyle = this.surface;
    g.textAlign = 'left';
    g.fillText(text, boxX + 7, y - 4);
    g.font = FONT;
  }

  private cursor() {
    const { g, s } = this;
    const x = Math.round(this.x(s.timeline.times[s.cursor])) + 0.5;
    if (x < s.frame.left || x > this.right + 1) return;
    g.strokeStyle = this.ink;
    line(g, x, s.frame.top, x, this.bottom);
  }

  private selection() {
    const { g, s } = this;
    if (!s.drag) return;
    const from = Math.min(...s.drag);
    const width = Math.abs(s.drag[1] - s.drag[0]);
    g.fillStyle = cssValue('--selection');
    g.fillRect(from, s.frame.top, width, s.frame.plotHeight);
    g.strokeStyle = this.ink;
    g.strokeRect(from + 0.5, s.frame.top + 0.5, width, s.frame.plotHeight);
  }
}

/** Neighbouring spans as one label: recomputation belongs to the backward pass around it. */
function joined(spans: Span[], phases: { key: string }[]): Span[] {
  const backward = phases.findIndex((phase) => phase.key === 'backward');
  const recompute = phases.findIndex((phase) => phase.key === 'recompute');
  const out: Span[] = [];
  for (const span of spans) {
    const phase = span.phase === recompute ? backward : span.phase;
    const last = out[out.length - 1];
    if (last && last.phase === phase && last.microStep === span.microStep) last.end = span.end;
    else out.push({ ...span, phase });
  }
  return out;
}

/** Returns the point that is drawn in each pixel column. */
export const drawPlot = (g: Context, scene: Scene): Int32Array => new Plot(g, scene).draw();

export const markName = (mark: MarkView, microSteps: number) =>
  microSteps > 1 && (mark.kind === 'forward_edge' || mark.kind === 'backward_end')
    ? `${mark.title} ${mark.microStep + 1}`
    : mark.title;
