// SPDX-License-Identifier: Apache-2.0
// Pages of real recordings, which the samples made: every section, the sums against the recording's
// own JSON, hover, zoom, sort and filter.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { launch, open, views } from '../../scripts/browser.mjs';
import { bytesIn, folder, shots, shownStep, sum, truthOf, urlOf } from './expect.mjs';

const recordings = (process.env.TALLY_REAL ?? 'gpt resnet accumulation checkpoint').split(' ');
const canvas = '.plot canvas';
const sections = ['answer', 'timeline', 'peak', 'theory', 'flops', 'verdicts', 'trend', 'unknown'];

for (const [view, options] of Object.entries(views)) {
  describe(view, () => {
    let browser;
    before(async () => {
      browser = await launch(options);
    });
    after(() => browser.close());

    for (const name of recordings) {
      it(name, async () => {
        assert.ok(existsSync(join(folder, `${name}.html`)), `${name}.html was not made`);
        const truth = truthOf(name);
        const step = shownStep(truth);
        const { peak, marks } = step.devices.cpu;
        const { page, errors, requests } = await open(browser.context, urlOf(name));
        for (const id of sections) {
          const box = await page.locator(`#${id}`).boundingBox();
          assert.ok(box && box.height > 40, `section ${id} is drawn`);
        }
        if (shots) {
          mkdirSync(shots, { recursive: true });
          await page.screenshot({ path: join(shots, `real-${name}-${view}.png`), fullPage: true });
        }

        // One number everywhere: the recording's.
        const shown = '.table .count b[data-bytes]';
        const bytesShown = async () => Number(await page.getAttribute(shown, 'data-bytes'));
        const read = async () => bytesIn(await page.textContent('.readout-head .num span'));
        assert.equal(await read(), peak.bytes);
        assert.equal(await bytesShown(), peak.bytes);
        assert.equal(
          sum((await page.locator('.readout tbody .raw').allTextContents()).map(bytesIn)),
          peak.bytes,
        );
        const books = await page
          .locator('.books tfoot tr', { hasText: 'in bytes' })
          .locator('td')
          .allTextContents();
        assert.ok(books.map(bytesIn).includes(peak.bytes));
        const differences = await page
          .locator('.books tfoot tr', { hasText: 'difference' })
          .locator('td')
          .allTextContents();
        assert.ok(differences.every((text) => bytesIn(text) === 0));
        for (const row of truth.theory) {
          assert.ok(row.cause && row.closed_form_cause, `${row.key} says why`);
        }

        // Hover, zoom, sort, filter.
        const picture = () => page.locator(canvas).evaluate((element) => element.toDataURL());
        const whole = await picture();
        const box = await page.locator(canvas).boundingBox();
        await page.mouse.move(box.x + box.width / 3, box.y + box.height / 2);
        await page.waitForTimeout(60);
        assert.notEqual(await read(), 0);
        await page.focus(canvas);
        await page.keyboard.press('+');
        await page.waitForTimeout(60);
        assert.notEqual(await picture(), whole);
        await page.click('.table .c-bytes button');
        const column = (await page.locator('.table tbody .c-raw').allTextContents()).map(bytesIn);
        assert.deepEqual(
          column,
          [...column].sort((a, b) => a - b),
        );
        await page.selectOption('.table select', { label: 'activations' });
        assert.equal(await bytesShown(), peak.roles.activation);
        await page.selectOption('.table select', { label: 'all roles' });
        const edge = marks
          .filter((mark) => mark.name === 'forward_edge')
          .sort((a, b) => b.bytes - a.bytes)[0];
        assert.ok(edge.bytes <= peak.bytes);
        assert.deepEqual(errors, []);
        assert.equal(requests.length, 1, requests.join(' '));
        await page.close();
      });
    }
  });
}
