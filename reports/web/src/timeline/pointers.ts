// SPDX-License-Identifier: Apache-2.0
// Mouse, touch and wheel on the timeline: hover moves the cursor, a drag chooses a range, two
// fingers or Ctrl and the wheel zoom. A plain wheel and one finger scroll the page.
import type { Frame } from './plot';
import { clamp, zoomed, type Window } from './window';

export interface Actions {
  frame: () => Frame;
  window: () => Window;
  whole: () => number;
  setWindow: (window: Window) => void;
  setCursorAt: (pixel: number) => void; // column of the plot
  setDrag: (drag: [number, number] | null) => void;
}

export function listen(canvas: HTMLCanvasElement, actions: Actions): () => void {
  const touches = new Map<number, number>(); // pointer, its x
  let dragFrom: number | null = null;
  let pinch: { window: Window; distance: number; time: number } | null = null;

  const place = (event: { clientX: number }) => {
    const { left, plotWidth } = actions.frame();
    const x = event.clientX - canvas.getBoundingClientRect().left;
    return Math.max(left, Math.min(left + plotWidth - 1, x));
  };
  const timeAt = (x: number, [begin, end]: Window) => {
    const { left, plotWidth } = actions.frame();
    return begin + ((x - left) / plotWidth) * (end - begin);
  };
  const spread = () => {
    const [a, b] = [...touches.values()];
    return { distance: Math.max(8, Math.abs(a - b)), middle: (a + b) / 2 };
  };

  const down = (event: PointerEvent) => {
    const x = place(event);
    if (event.pointerType !== 'touch') {
      dragFrom = x;
      canvas.setPointerCapture(event.pointerId);
      return;
    }
    touches.set(event.pointerId, x);
    if (touches.size === 2) {
      const { distance, middle } = spread();
      pinch = { window: actions.window(), distance, time: timeAt(middle, actions.window()) };
    }
  };
  const move = (event: PointerEvent) => {
    const x = place(event);
    if (touches.has(event.pointerId)) touches.set(event.pointerId, x);
    if (pinch && touches.size === 2) {
      const { distance, middle } = spread();
      const width = ((pinch.window[1] - pinch.window[0]) * pinch.distance) / distance;
      const { left, plotWidth } = actions.frame();
      const begin = pinch.time - ((middle - left) / plotWidth) * width;
      actions.setWindow(clamp(begin, begin + width, actions.whole()));
      return;
    }
    if (dragFrom !== null) actions.setDrag([dragFrom, x]);
    actions.setCursorAt(Math.floor(x - actions.frame().left));
  };
  const up = (event: PointerEvent) => {
    touches.delete(event.pointerId);
    if (touches.size < 2) pinch = null;
    if (dragFrom === null) return;
    const ends = [dragFrom, place(event)].sort((a, b) => a - b);
    dragFrom = null;
    actions.setDrag(null);
    if (event.type === 'pointercancel' || ends[1] - ends[0] <= 4) return;
    const window = actions.window();
    actions.setWindow(clamp(timeAt(ends[0], window), timeAt(ends[1], window), actions.whole()));
  };
  const wheel = (event: WheelEvent) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const window = actions.window();
    const factor = event.deltaY > 0 ? 1.25 : 0.8;
    actions.setWindow(zoomed(window, factor, timeAt(place(event), window), actions.whole()));
  };
  const double = () => actions.setWindow([0, actions.whole()]);

  canvas.addEventListener('pointerdown', down);
  canvas.addEventListener('pointermove', move);
  canvas.addEventListener('pointerup', up);
  canvas.addEventListener('pointercancel', up);
  canvas.addEventListener('dblclick', double);
  canvas.addEventListener('wheel', wheel, { passive: false });
  return () => {
    canvas.removeEventListener('pointerdown', down);
    canvas.removeEventListener('pointermove', move);
    canvas.removeEventListener('pointerup', up);
    canvas.removeEventListener('pointercancel', up);
    canvas.removeEventListener('dblclick', double);
    canvas.removeEventListener('wheel', wheel);
  };
}
