// SPDX-License-Identifier: Apache-2.0
// The timeline of the chosen step, its readout (which is also the legend), the strip of all steps.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { prepare } from '../canvas';
import type { StepView, Timeline } from '../data/types';
import { human, moment } from '../format';
import { indexAt } from '../pyramid';
import { usePage, useWidth } from '../ui';
import { MarksChart } from './marks-chart';
import { Overview } from './overview';
import { drawPlot, frameFor, markName } from './plot';
import { listen } from './pointers';
import { Readout } from './readout';
import { clamp, panned, showing, zoomed, type Window } from './window';

export interface TimelineProps {
  step: StepView;
  onStep: (position: number) => void;
}

export function TimelineSection({ step, onStep }: TimelineProps) {
  return (
    <div class="timeline">
      {step.timeline && step.timeline.length > 0 ? (
        <StepTimeline key={`${step.position} ${step.device}`} step={step} data={step.timeline} />
      ) : (
        <MarksChart key={`${step.position} ${step.device}`} step={step} />
      )}
      <Overview step={step} onStep={onStep} />
    </div>
  );
}

interface Limit {
  bytes: number;
  title: string;
}
/**
 * What stopped the step, else the memory of the device where the run came near it; far above, it
 * would only flatten the picture.
 */
function useLimit(step: StepView): Limit | null {
  const { run } = usePage();
  const memory = run.meta.devices.find((device) => device.id === step.device)?.memory_bytes ?? 0;
  const limit = step.marks.find((mark) => mark.kind === 'oom')?.limit ?? 0;
  if (limit > 0 && limit < memory) return { bytes: limit, title: 'budget' };
  return step.peak && memory > 0 && step.peak.bytes > memory / 4
    ? { bytes: memory, title: 'memory of the device' }
    : null;
}

function StepTimeline({ step, data }: { step: StepView; data: Timeline }) {
  const { run, theme } = usePage();
  const [box, width] = useWidth<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const whole = Math.max(step.us, data.times[data.length - 1], 1);
  const [window, setWindow] = useState<Window>([0, whole]);
  const [cursor, setCursor] = useState(data.highest);
  const [solo, setSolo] = useState(-1);
  const [off, setOff] = useState<ReadonlySet<number>>(new Set());
  const [fit, setFit] = useState(false);
  const [drag, setDrag] = useState<[number, number] | null>(null);
  const drawn = useRef<Int32Array>(new Int32Array(0));
  const limit = useLimit(step);
  const reserved = data.reserve?.reserved ?? null;
  const mostReserved = useMemo(
    () => (reserved ?? []).reduce((most, bytes) => Math.max(most, bytes), 0),
    [reserved],
  );
  const frame = useMemo(() => frameFor(width, step.microSteps), [width, step]);

  const highestIn = ([begin, end]: Window) =>
    data.total[data.pyramid.argmax(indexAt(data.times, begin), indexAt(data.times, end) + 1)];
  const highest =
    solo >= 0
      ? data.roles[solo].reduce((a, b) => Math.max(a, b), 1) * 1.08
      : fit
        ? Math.max(1, highestIn(window)) * 1.12
        : Math.max(limit?.bytes ?? 0, mostReserved, data.total[data.highest], 1) *
          (limit ? 1.03 : 1.1);

  useLayoutEffect(() => {
    if (!width) return;
    drawn.current = drawPlot(prepare(canvas.current!, frame.width, frame.height), {
      frame,
      step,
      timeline: data,
      window,
      highest,
      solo,
      off,
      reserved,
      cursor,
      drag,
      limit,
      colors: run.meta.roles.map((role) => role[theme]),
      hatched: run.meta.roles.findIndex((role) => role.key === 'unattributed'),
      phases: run.meta.phases,
    });
  }, [width, window, cursor, solo, off, fit, theme, drag]);

  const live = useRef({ frame, window, whole });
  live.current = { frame, window, whole };
  useEffect(
    () =>
      listen(canvas.current!, {
        frame: () => live.current.frame,
        window: () => live.current.window,
        whole: () => live.current.whole,
        setWindow,
        setDrag,
        setCursorAt: (pixel) => {
          const point = drawn.current[Math.min(drawn.current.length - 1, Math.max(0, pixel))];
          if (point !== undefined) setCursor(point);
        },
      }),
    [],
  );

  const go = (point: number) => {
    const to = Math.max(0, Math.min(data.length - 1, point));
    setCursor(to);
    setWindow((now) => showing(now, data.times[to], whole));
  };
  const zoom = (factor: number) =>
    setWindow((now) => zoomed(now, factor, data.times[cursor], whole));
  const pan = (share: number) => setWindow((now) => panned(now, share, whole));
  const all = () => setWindow([0, whole]);
  const peak = () => {
    setCursor(data.highest);
    const time = data.times[data.highest];
    setWindow(clamp(time - whole / 30, time + whole / 30, whole));
  };
  const keys: Record<string, (shift: boolean) => void> = {
    ArrowLeft: (shift) => (shift ? pan(-0.2) : go(cursor - 1)),
    ArrowRight: (shift) => (shift ? pan(0.2) : go(cursor + 1)),
    '+': () => zoom(0.5),
    '=': () => zoom(0.5),
    '-': () => zoom(2),
    '0': all,
    p: () => go(data.highest),
    f: () => setFit(!fit),
    Home: () => go(0),
    End: () => go(data.length - 1),
    PageUp: () => pan(-0.8),
    PageDown: () => pan(0.8),
  };
  const label =
    `Live bytes during step ${step.index}, stacked by role. ` +
    `Peak ${human(data.total[data.highest])} at ${moment(data.times[data.highest])}. ` +
    'Arrow keys move the cursor; its values are in the table beside.';

  return (
    <div class="plot-and-readout">
      <div class="plot">
        <div class="bar">
          <div class="buttons">
            <button onClick={() => zoom(0.5)} aria-label="Zoom in">
              +
            </button>
            <button onClick={() => zoom(2)} aria-label="Zoom out">
              −
            </button>
            <button onClick={() => pan(-0.4)} aria-label="Pan left">
              ←
            </button>
            <button onClick={() => pan(0.4)} aria-label="Pan right">
              →
            </button>
            <button onClick={all}>Whole</button>
            <button onClick={peak}>Peak</button>
            <button
              aria-pressed={fit}
              onClick={() => setFit(!fit)}
              title="Fit the height to what is in view"
            >
              Fit
            </button>
          </div>
          <span class="hint">drag to zoom · ←→ move · + − zoom · P peak · F fit · 0 whole</span>
        </div>
        <div ref={box}>
          <canvas
            ref={canvas}
            tabIndex={0}
            role="img"
            aria-label={label}
            onKeyDown={(event) => {
              const action = keys[event.key];
              if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
              action(event.shiftKey);
              event.preventDefault();
            }}
          />
        </div>
        <p class="mark-list">
          <span>
            <i class="diamond" aria-hidden="true" /> go to
          </span>
          {step.marks.slice(0, 12).map((mark) => (
            <button
              class="link"
              key={`${mark.kind} ${mark.microStep}`}
              onClick={() => go(mark.kind === 'peak' ? data.highest : indexAt(data.times, mark.us))}
            >
              {markName(mark, step.microSteps)}
            </button>
          ))}
        </p>
      </div>
      <Readout
        step={step}
        data={data}
        cursor={cursor}
        solo={solo}
        onSolo={setSolo}
        off={off}
        onOff={setOff}
      />
    </div>
  );
}
