// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { clamp, panned, showing, zoomed } from '../../src/timeline/window';

const WHOLE = 1000;

it('a window stays inside the step and never gets too narrow', () => {
  expect(clamp(-50, 100, WHOLE)).toEqual([0, 150]);
  expect(clamp(950, 1100, WHOLE)).toEqual([850, 1000]);
  expect(clamp(500, 500, WHOLE)).toEqual([500, 520]);
  expect(clamp(0, 5000, WHOLE)).toEqual([0, 1000]);
  expect(clamp(3, 4, 8)).toEqual([0, 8]);
});
it('zooming keeps the place that is pointed at', () => {
  expect(zoomed([0, 1000], 0.5, 200, WHOLE)).toEqual([100, 600]);
  expect(zoomed([100, 600], 2, 200, WHOLE)).toEqual([0, 1000]);
});
it('zooming at a place out of view keeps the middle', () => {
  expect(zoomed([400, 600], 0.5, 0, WHOLE)).toEqual([450, 550]);
});
it('panning stops at the ends', () => {
  expect(panned([0, 100], 0.5, WHOLE)).toEqual([50, 150]);
  expect(panned([0, 100], -0.5, WHOLE)).toEqual([0, 100]);
});
it('the cursor drags the window along only when it leaves it', () => {
  expect(showing([0, 100], 50, WHOLE)).toEqual([0, 100]);
  expect(showing([0, 100], 500, WHOLE)).toEqual([450, 550]);
});
