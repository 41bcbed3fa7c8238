// SPDX-License-Identifier: Apache-2.0
// A step that was not kept in detail: its books at the marks, a bar for each.
import type { StepView } from '../data/types';
import { human, raw } from '../format';
import { fillStyle, Swatch, useHatch, usePage } from '../ui';
import { markName } from './plot';

export function MarksChart({ step }: { step: StepView }) {
  const { run } = usePage();
  const hatch = useHatch();
  if (step.marks.length === 0) {
    return <p class="note">No memory was recorded in this step.</p>;
  }
  const highest = Math.max(1, ...step.marks.map((mark) => mark.bytes));
  const used = run.meta.roles
    .map((_, role) => role)
    .filter((role) => step.marks.some((mark) => mark.roles[role] !== 0));
  return (
    <div class="marks-chart">
      <p>
        <b>Step {step.index} was not kept in detail.</b> These are its books at the marks, to the
        byte; between them nothing is known.
      </p>
      {step.marks.map((mark) => (
        <div class="mark-bar" key={`${mark.kind} ${mark.microStep}`}>
          <span>{markName(mark, step.microSteps)}</span>
          <div class="track" style={{ width: `${(mark.bytes / highest) * 100}%` }}>
            {used.map((role) => (
              <div
                key={role}
                class={'fill' + hatch(role)}
                style={{ ...fillStyle(role), flexGrow: mark.roles[role] }}
                title={`${run.meta.roles[role].title}: ${raw(mark.roles[role])}`}
              />
            ))}
          </div>
          <b class="num" title={raw(mark.bytes)}>
            {human(mark.bytes)}
          </b>
        </div>
      ))}
      <ul class="keys">
        {used.map((role) => (
          <li key={role}>
            <Swatch role={role} />
            {run.meta.roles[role].title}
          </li>
        ))}
      </ul>
    </div>
  );
}
