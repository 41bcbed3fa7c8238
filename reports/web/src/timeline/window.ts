// SPDX-License-Identifier: Apache-2.0
// The part of the step that is in view: zooming and panning as plain arithmetic.

export type Window = [begin: number, end: number];

const NARROWEST = 20; // microseconds

export function clamp(begin: number, end: number, whole: number): Window {
  const width = Math.min(whole, Math.max(Math.min(NARROWEST, whole), end - begin));
  const from = Math.max(0, Math.min(whole - width, begin));
  return [from, from + width];
}
/** factor < 1 zooms in; `at` stays where it is. */
export function zoomed([begin, end]: Window, factor: number, at: number, whole: number): Window {
  const fixed = at < begin || at > end ? (begin + end) / 2 : at;
  return clamp(fixed - (fixed - begin) * factor, fixed + (end - fixed) * factor, whole);
}
export function panned([begin, end]: Window, share: number, whole: number): Window {
  const by = (end - begin) * share;
  return clamp(begin + by, end + by, whole);
}
/** Moves only when `time` is out of view. */
export function showing(window: Window, time: number, whole: number): Window {
  const [begin, end] = window;
  if (time >= begin && time <= end) return window;
  const half = (end - begin) / 2;
  return clamp(time - half, time + half, whole);
}
