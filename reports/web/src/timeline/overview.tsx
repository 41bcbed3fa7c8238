// SPDX-License-Identifier: Apache-2.0
// All steps as a strip of their peaks, and the picker: a slider, a number and three buttons.
import { useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { cssValue, drawStack, niceStep, prepare } from '../canvas';
import { duration, fix, human } from '../format';
import { pixelColumns } from '../pyramid';
import { usePage, useWidth } from '../ui';
import type { TimelineProps } from './timeline';

const HEIGHT = 68;
const BASE = 46; // y of 0 bytes

export function Overview({ step, onStep }: TimelineProps) {
  const { run, theme } = usePage();
  const [box, width] = useWidth<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const series = useMemo(() => run.series(step.device, 'peak'), [run, step.device]);
  const kept = useMemo(() => run.stepsInDetail(), [run]);
  const count = run.steps;
  const left = width < 560 ? 44 : 56;
  const plotWidth = Math.max(10, width - left - 1);
  const highest = series.pyramid.argmax(0, count);
  const at = step.position;

  useLayoutEffect(() => {
    if (!width) return;
    const g = prepare(canvas.current!, width, HEIGHT);
    const positions = Float64Array.from({ length: count }, (_, i) => i);
    const top = Math.max(1, series.total[highest]) * 1.05;
    const x = (position: number) => left + (position / count) * plotWidth;
    drawStack(g, {
      values: series.roles,
      index: pixelColumns(positions, series.pyramid, 0, count, plotWidth),
      order: series.roles.map((_, role) => role),
      colors: run.meta.roles.map((role) => role[theme]),
      hatched: -1,
      left,
      y: (bytes) => BASE - (bytes / top) * (BASE - 4),
      gap: null,
    });
    g.fillStyle = cssValue('--ink2');
    g.textAlign = 'right';
    g.fillText('peaks', left - 8, 28);
    for (const position of kept) g.fillRect(Math.round(x(position + 0.5)) - 1, BASE + 2, 2, 5);
    g.textAlign = 'left';
    const every = Math.max(1, niceStep(count, width < 560 ? 4 : 6));
    for (let position = 0; position < count; position += every) {
      const middle = count < plotWidth / 40 ? x(position + 0.5) - 3 : x(position);
      g.fillText(fix(run.stepIndex(position)), middle, HEIGHT - 1);
    }
    const marker = Math.round(x(at + 0.5));
    g.fillStyle = cssValue('--ink');
    g.fillRect(marker - 1, 0, 2, BASE + 2);
    g.beginPath();
    g.moveTo(marker, BASE + 2);
    g.lineTo(marker - 5, BASE + 9);
    g.lineTo(marker + 5, BASE + 9);
    g.fill();
  }, [width, at, theme, series]);

  if (count < 2) return null;
  const clamped = (position: number) => Math.max(0, Math.min(count - 1, position));
  const pick = (event: PointerEvent) => {
    const x = event.clientX - canvas.current!.getBoundingClientRect().left - left;
    onStep(clamped(Math.floor((x / plotWidth) * count)));
  };
  const jumps: Record<string, number> = {
    ArrowLeft: -1,
    ArrowRight: 1,
    PageUp: -100,
    PageDown: 100,
    Home: -Infinity,
    End: Infinity,
  };
  const nearest = kept.reduce(
    (a, b) => (Math.abs(b - at) < Math.abs(a - at) ? b : a),
    kept[0] ?? at,
  );
  return (
    <div class="overview">
      <div class="bar">
        <label>
          step{' '}
          <input
            type="number"
            min={run.stepIndex(0)}
            max={run.stepIndex(count - 1)}
            value={step.index}
            onChange={(event) => onStep(run.positionOf(Number(event.currentTarget.value)))}
          />
        </label>
        <span class="overview-text">
          of {fix(count)}: <b class="nowrap">{human(series.total[at])}</b> at its peak,{' '}
          {duration(run.stepUs(at))}
          {step.inDetail ? (
            '; kept in detail'
          ) : kept.length > 0 ? (
            <>
              ; marks only, nearest in detail:{' '}
              <button class="link" onClick={() => onStep(nearest)}>
                step {fix(run.stepIndex(nearest))}
              </button>
            </>
          ) : (
            '; marks only'
          )}
        </span>
        <div class="buttons">
          <button onClick={() => onStep(0)}>First</button>
          <button onClick={() => onStep(highest)}>Highest</button>
          <button onClick={() => onStep(count - 1)}>Last</button>
        </div>
      </div>
      <div ref={box}>
        <canvas
          ref={canvas}
          tabIndex={0}
          role="slider"
          aria-label="Step"
          aria-valuemin={0}
          aria-valuemax={count - 1}
          aria-valuenow={at}
          aria-valuetext={`step ${step.index}, ${human(series.total[at])}`}
          onPointerDown={(event) => {
            canvas.current!.setPointerCapture(event.pointerId);
            pick(event);
          }}
          onPointerMove={(event) => event.buttons > 0 && pick(event)}
          onKeyDown={(event) => {
            const jump = jumps[event.key];
            if (!jump) return;
            onStep(clamped(at + jump * (event.shiftKey ? 10 : 1)));
            event.preventDefault();
          }}
        />
      </div>
    </div>
  );
}
