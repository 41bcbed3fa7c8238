// SPDX-License-Identifier: Apache-2.0
// The colours come from reports/palette.h, the only place that has them; here it is checked that
// they can be told apart.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { chroma, ciede2000, contrast, distance } from './palette';

const header = readFileSync(join(process.env.TALLY_SOURCE ?? '../..', 'reports/palette.h'), 'utf8');
const roles = [...header.matchAll(/\{0x([0-9a-f]{6}), 0x([0-9a-f]{6})\},\s*\/\/ (\w+)/g)].map(
  ([, light, dark, role]) => ({ role, light: '#' + light, dark: '#' + dark }),
);
const surface = { light: '#ffffff', dark: '#14171a' };
// Those that fill most of a plot, and those that stand beside each other in it.
const main = ['parameter', 'optimizer_state', 'gradient', 'activation'];
const searched = [
  ...main,
  'recomputed_activation',
  'input',
  'temporary_forward',
  'temporary_backward',
  'temporary_optimizer',
  'workspace',
  'cached',
  'unattributed',
];

it('the distance is that of a published pair', () => {
  const found = ciede2000([50, 2.6772, -79.7751], [50, 0, -82.7485]);
  expect(found).toBeCloseTo(2.0425, 3);
});
it('every role has a colour', () => {
  expect(roles).toHaveLength(18);
});

describe.each(['light', 'dark'] as const)('on %s ground', (theme) => {
  const color = (role: string) => roles.find((r) => r.role === role)![theme];
  it('neighbours in the stack stand apart', () => {
    for (let i = 1; i < searched.length; i++) {
      expect(distance(color(searched[i - 1]), color(searched[i]))).toBeGreaterThan(19.5);
    }
  });
  it('all pairs of the twelve searched ones differ', () => {
    for (const a of searched) {
      for (const b of searched)
        if (a < b) expect(distance(color(a), color(b))).toBeGreaterThan(10.9);
    }
  });
  it('the four main ones are the strongest', () => {
    const rest = roles.filter((r) => !main.includes(r.role)).map((r) => chroma(r[theme]));
    for (const role of main) {
      expect(chroma(color(role))).toBeGreaterThan(Math.max(...rest));
      expect(contrast(color(role), surface[theme])).toBeGreaterThan(3);
    }
  });
});
