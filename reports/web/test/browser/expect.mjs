// SPDX-License-Identifier: Apache-2.0
// What the browser tests share: the pages, their truth, numbers read back from text.
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { executable } from '../../scripts/browser.mjs';

if (!executable) {
  console.error('No Chromium found: install chromium, or set CHROMIUM to its path.');
  process.exit(77);
}
export const folder = resolve(process.env.TALLY_PAGES ?? 'pages');
export const shots = process.env.TALLY_SHOTS;
export const urlOf = (name) => 'file://' + join(folder, name + '.html');

/** The Summary that the page was made from, as the JSON report says it. */
export const truthOf = (name) => JSON.parse(readFileSync(join(folder, name + '.json'), 'utf8'));
export const shownStep = (truth) => truth.steps.find((step) => step.index === truth.shown);
export const markOf = (step, device, kind) =>
  step.devices[device].marks.find((mark) => mark.name === kind);

/** "10,022,020 B" -> 10022020 */
export const bytesIn = (text) => Number(text.replace(/[^0-9\u2212-]/g, '').replace('\u2212', '-'));
export const sum = (values) => values.reduce((a, b) => a + b, 0);

/** Asks again until the answer holds, and gives it: drawing waits for a frame, and a busy machine's is late. */
export async function until(read, holds, what) {
  for (let tries = 0; ; ++tries) {
    const value = await read();
    if (holds(value)) return value;
    if (tries === 200) throw new Error(`${what} within ten seconds: ${JSON.stringify(value).slice(0, 80)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
