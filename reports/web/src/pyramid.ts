// SPDX-License-Identifier: Apache-2.0
// Finds the highest state of any range at once, so that a pixel column of a zoomed-out plot shows
// the highest state that lived in it: no zoom level loses a peak.
import type { Column } from './data/columns';

export class Pyramid {
  private readonly levels: Int32Array[] = [];

  constructor(private readonly values: Column) {
    let level = Int32Array.from({ length: values.length }, (_, i) => i);
    this.levels.push(level);
    while (level.length > 1) {
      const next = new Int32Array((level.length + 1) >> 1);
      for (let i = 0; i < next.length; i++) {
        const a = level[2 * i];
        const b = level[2 * i + 1];
        next[i] = b === undefined || values[a] >= values[b] ? a : b;
      }
      this.levels.push(next);
      level = next;
    }
  }

  /** The index of the highest value in [begin, end); the first of equal ones, as in the books. */
  argmax(begin: number, end: number): number {
    let best = begin;
    const offer = (index: number) => {
      const more = this.values[index] - this.values[best];
      if (more > 0 || (more === 0 && index < best)) best = index;
    };
    for (let level = 0; begin < end; level++) {
      if (begin & 1) offer(this.levels[level][begin++]);
      if (end & 1) offer(this.levels[level][--end]);
      begin >>= 1;
      end >>= 1;
    }
    return best;
  }
}

/** The last index with times[i] <= time; 0 before the first. */
export function indexAt(times: Column, time: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

/** One index a pixel column: of the states that lived in it, the highest. */
export function pixelColumns(
  times: Column,
  pyramid: Pyramid,
  begin: number,
  end: number,
  width: number,
): Int32Array {
  const out = new Int32Array(width);
  let first = indexAt(times, begin);
  for (let x = 0; x < width; x++) {
    const last = indexAt(times, begin + ((end - begin) * (x + 1)) / width);
    out[x] = last > first ? pyramid.argmax(first, last + 1) : last;
    first = last;
  }
  return out;
}
