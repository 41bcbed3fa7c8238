// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { indexAt, pixelColumns, Pyramid } from '../../src/pyramid';

function random(seed: number) {
  let state = seed;
  return () => (state = (state * 16807) % 2147483647) / 2147483647;
}

describe('the pyramid', () => {
  it('equals a linear scan on every range', () => {
    const values = Float64Array.from({ length: 257 }, random(1));
    const pyramid = new Pyramid(values);
    for (let begin = 0; begin < 257; begin += 3) {
      for (let end = begin + 1; end <= 257; end += 5) {
        const highest = Math.max(...values.slice(begin, end));
        expect(values[pyramid.argmax(begin, end)]).toBe(highest);
      }
    }
  });
  it('takes the first of equal ones', () => {
    const values = Float64Array.from({ length: 100 }, (_, i) => (i % 7 === 3 ? 5 : 1));
    const pyramid = new Pyramid(values);
    for (let begin = 0; begin < 100; begin++) {
      const first = values.slice(begin).indexOf(5);
      if (first >= 0) expect(pyramid.argmax(begin, 100)).toBe(begin + first);
    }
  });
  it('works for one value', () => {
    expect(new Pyramid([5]).argmax(0, 1)).toBe(0);
  });
});

describe('the time axis', () => {
  it('holds a state until the next one', () => {
    const times = [0, 5, 5, 9];
    const found = [-1, 0, 4.9, 5, 8, 9, 99].map((time) => indexAt(times, time));
    expect(found).toEqual([0, 0, 0, 2, 2, 3, 3]);
  });
});

describe('pixel columns', () => {
  // A peak that lives for one event of 50,000, in any place, at any width.
  it('never lose the peak', () => {
    const next = random(7);
    const times = Float64Array.from({ length: 50_000 }, (_, i) => i);
    for (let round = 0; round < 40; round++) {
      const values = Float64Array.from({ length: times.length }, () => next());
      const place = Math.floor(next() * times.length);
      values[place] = 10;
      const pyramid = new Pyramid(values);
      for (const width of [37, 300, 896, 2400]) {
        const columns = pixelColumns(times, pyramid, 0, times.length, width);
        expect(columns.includes(place)).toBe(true);
      }
    }
  });
  it('show what is in view at every zoom', () => {
    const values = Float64Array.from({ length: 1000 }, random(3));
    const times = Float64Array.from({ length: 1000 }, (_, i) => 10 * i);
    const pyramid = new Pyramid(values);
    for (let width = 10_000; width > 50; width /= 2) {
      const begin = 5000 - width / 2;
      const columns = pixelColumns(times, pyramid, begin, begin + width, 300);
      const first = indexAt(times, begin);
      const last = indexAt(times, begin + width);
      const highest = Math.max(...values.slice(first, last + 1));
      expect(Math.max(...Array.from(columns, (i) => values[i]))).toBe(highest);
    }
  });
});
