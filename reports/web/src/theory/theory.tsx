// SPDX-License-Identifier: Apache-2.0
// Measured against theory: a bar for what was measured, a tick for what the rule says.
import type { TheoryRow } from '../data/layout';
import type { StepView } from '../data/types';
import { capital, clean, human, inUnit, raw, signed, signedPercent, unitFor } from '../format';
import { fillStyle, Section, Swatch, useHatch, usePage } from '../ui';
import { Books } from './books';

export function Theory({ step }: { step: StepView }) {
  const { run } = usePage();
  const rows = run.meta.theory.filter((row) => row.unit === 'bytes');
  return (
    <Section id="theory" title="Measured against theory" take={<Takeaway rows={rows} />}>
      {rows.length > 0 && <Rules rows={rows} />}
      {run.meta.closed_form_of !== '' && (
        <p class="note">The closed form is of {clean(run.meta.closed_form_of)}.</p>
      )}
      {rows.length > 0 && rows.every((row) => row.closed_form === null) && (
        <p class="note">
          Closed form from the model’s configuration: {clean(rows[0].closed_form_cause)}.
        </p>
      )}
      <Books step={step} />
    </Section>
  );
}

function Takeaway({ rows }: { rows: TheoryRow[] }) {
  const exact = rows.filter((row) => row.expected !== null && row.deviation === 0 && row.measured);
  const peak = rows.find((row) => row.key === 'peak');
  const names = exact.map((row) => (row.key === 'activation' ? 'what autograd keeps' : row.title));
  const last = names.pop();
  return (
    <>
      {last !== undefined && (
        <>
          {capital(names.length > 0 ? `${names.join(', ')} and ${last}` : last)} match their rule to
          the byte.{' '}
        </>
      )}
      {peak && peak.expected !== null && peak.deviation !== 0 && (
        <>
          The peak is {human(Math.abs(peak.deviation))} {peak.deviation > 0 ? 'above' : 'below'} its
          rule.
        </>
      )}
      {peak && peak.expected === null && <>The peak has no rule here: {clean(peak.cause)}.</>}
      {rows.length === 0 && <>The recording holds no rule for this step.</>}
    </>
  );
}

function Rules({ rows }: { rows: TheoryRow[] }) {
  const { run } = usePage();
  const hatch = useHatch();
  const largest = Math.max(1, ...rows.map((row) => Math.max(row.measured, row.expected ?? 0)));
  const unit = unitFor(largest);
  const scale = (bytes: number) => `${(bytes / (largest * 1.02)) * 100}%`;
  const shown = run.stepIndex(run.meta.shown);
  const hasClosedForm = rows.some((row) => row.closed_form !== null);
  return (
    <div class="scroll flat" tabIndex={0} role="region" aria-label="Measured and expected bytes">
      <table class="grid rules">
        <thead>
          <tr>
            <th scope="col">step {shown}</th>
            <th scope="col" class="c-track">
              <span class="track-key">
                <i class="key-bar" />
                measured <i class="key-tick" />
                theory
              </span>
            </th>
            <th scope="col" class="num">
              measured, {unit.name}
            </th>
            <th scope="col" class="num c-expected">
              theory, {unit.name}
            </th>
            <th scope="col" class="num c-deviation">
              above theory
            </th>
            <th scope="col" class="num">
              in %
            </th>
            {hasClosedForm && (
              <th scope="col" class="num c-closed" title="From the model’s configuration alone">
                closed form, {unit.name}
              </th>
            )}
            <th scope="col" class="c-why">
              where it comes from
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => {
            const role = run.meta.roles.findIndex((word) => word.key === row.key);
            const fill = role >= 0 ? fillStyle(role) : { background: 'var(--ink)' };
            const { expected } = row;
            return (
              <tr key={row.key}>
                <th scope="row">
                  {role >= 0 ? <Swatch role={role} /> : <i class="swatch ink" aria-hidden="true" />}
                  {clean(row.title)}
                </th>
                <td class="c-track">
                  <div class="track" aria-hidden="true">
                    <div
                      class={'fill' + (role >= 0 ? hatch(role) : '')}
                      style={{ ...fill, width: scale(row.measured) }}
                    />
                    {expected !== null && <i style={{ left: scale(expected) }} />}
                  </div>
                </td>
                <td class="num" title={raw(row.measured)}>
                  {inUnit(row.measured, unit)}
                </td>
                <td class="num c-expected" title={expected === null ? '' : raw(expected)}>
                  {expected === null ? '–' : inUnit(expected, unit)}
                </td>
                <td class="num c-deviation" title={expected === null ? '' : raw(row.deviation)}>
                  {expected === null ? '–' : signed(row.deviation)}
                </td>
                <td class="num">{ofTheory(row)}</td>
                {hasClosedForm && (
                  <td
                    class="num c-closed"
                    title={
                      row.closed_form === null
                        ? clean(row.closed_form_cause)
                        : `${raw(row.closed_form)}: ${clean(row.closed_form_cause)}`
                    }
                  >
                    {row.closed_form === null ? '–' : inUnit(row.closed_form, unit)}
                  </td>
                )}
                <td class="c-why">
                  {row.cause !== 'exact' && clean(row.cause)}
                  <small>{clean(row.formula)}</small>
                  {hasClosedForm && <small>closed form: {clean(row.closed_form_cause)}</small>}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

export function ofTheory(row: TheoryRow): string {
  if (row.expected === null) return '–';
  if (row.deviation === 0) return 'exact';
  return row.expected ? signedPercent(row.deviation / row.expected, 2) : '–';
}
