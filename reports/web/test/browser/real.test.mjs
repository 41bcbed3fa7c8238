// SPDX-License-Identifier: Apache-2.0
// Pages of real recordings, which the samples made: every section, the sums against the recording's
// own JSON, hover, zoom, sort and filter.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { launch, open, views } from '../../scripts/browser.mjs';
import { bytesIn, folder, shots, shownStep, sum, truthOf, until, urlOf } from './expect.mjs';

const recordings = (
  process.env.TALLY_REAL ?? 'gpt resnet accumulation checkpoint out_of_budget card card_oom'
).split(' ');
const canvas = '.plot canvas';
const sections = ['answer', 'timeline', 'peak', 'theory', 'flops', 'verdicts', 'trend', 'unknown'];

for (const [view, options] of Object.entries(views)) {
  describe(view, () => {
    let browser;
    before(async () => {
      browser = await launch({ ...options, reducedMotion: 'reduce' }); // links jump at once
    });
    after(() => browser.close());

    // The rest of the views are those of one model: what differs by view is layout, not data.
    const both = /^(laptop-light|phone-dark)$/.test(view);
    for (const name of both ? recordings : recordings.slice(0, 1)) {
      it(name, async () => {
        assert.ok(existsSync(join(folder, `${name}.html`)), `${name}.html was not made`);
        const truth = truthOf(name);
        const step = shownStep(truth);
        const { peak, marks } = step.devices[truth.device];
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
        await until(read, (bytes) => bytes > 0, 'hover shows bytes');
        await page.focus(canvas);
        await page.keyboard.press('+');
        await until(picture, (now) => now !== whole, 'a zoomed picture');
        await page.click('.table .c-bytes button');
        const column = (await page.locator('.table tbody .c-raw').allTextContents()).map(bytesIn);
        assert.deepEqual(
          column,
          [...column].sort((a, b) => a - b),
        );
        const [role, most] = Object.entries(peak.roles).sort((a, b) => b[1] - a[1])[0];
        const titles = await page.evaluate(() =>
          JSON.parse(document.getElementById('tally-meta').textContent).roles.map(
            ({ key, title }) => [key, title],
          ),
        );
        await page.selectOption('.table select', { label: new Map(titles).get(role) });
        assert.equal(await bytesShown(), most);
        await page.selectOption('.table select', { label: 'all roles' });

        // Each number of the sentence leads to a place that shows it.
        for (const link of await page.locator('h1 a').all()) {
          const target = await link.getAttribute('href');
          const [number] = (await link.textContent()).match(/\d[\d.,]*/);
          const place = page.locator(target);
          await link.click();
          assert.equal(await page.evaluate(() => location.hash), target);
          await until(
            () =>
              page.evaluate((selector) => {
                const { top, bottom } = document.querySelector(selector).getBoundingClientRect();
                return { top, bottom, height: innerHeight };
              }, target),
            ({ top, bottom, height }) => top < height && bottom > 0,
            `${target} is in view`,
          );
          // The table of theory has a digit more than the sentence.
          const shows = await place.evaluate((element) => element.textContent);
          const digits = (number.split('.')[1] ?? '').length;
          const rounded = (shows.match(/\d[\d,]*(\.\d+)?/g) ?? []).map((text) =>
            Number(text.replaceAll(',', '')).toFixed(digits),
          );
          const found = shows.includes(number) || rounded.includes(number.replaceAll(',', ''));
          assert.ok(found, `${target} shows ${number}`);
        }

        // Another mark of the step, by the table's own choice.
        const choose = async (mark) => {
          const select = page.locator('.mark-choice select');
          if (await select.count()) {
            const options = await select.locator('option').allTextContents();
            const index = options.findIndex((text) => text.startsWith(mark.title));
            await select.selectOption(String(index));
          } else {
            await page.click(`.mark-choice button:text-is("${mark.title}")`);
          }
        };
        const last = marks.at(-1);
        await choose({ title: last.name === 'oom' ? 'out of memory' : last.name });
        assert.equal(await bytesShown(), last.bytes);

        // What stopped the run: its mark, its verdict, the limit.
        const oom = marks.find((mark) => mark.name === 'oom');
        assert.equal(oom !== undefined, /out_of_budget|_oom/.test(name));
        if (oom) {
          await choose({ title: 'out of memory' });
          assert.equal(await bytesShown(), oom.bytes);
          assert.ok(oom.wanted_bytes > 0 && oom.limit_bytes > 0);
          const card = page.locator('.card', { hasText: 'out of memory' });
          assert.match(await card.locator('h3').textContent(), /An allocation of .* failed/);
          assert.ok((await card.locator('ul li').count()) > 0, 'evidence');
          assert.ok((await card.locator('.remedies dt').count()) > 0, 'remedies');
        }

        // Beside the blocks of a caching allocator: in the readout at the peak, in the books.
        assert.equal(peak.caching !== undefined, name.startsWith('card'));
        if (peak.caching) {
          await page.focus(canvas);
          await page.keyboard.press('p');
          const rows = await page.locator('.reserve tr').evaluateAll((list) =>
            list.map((row) => [
              row.querySelector('th').textContent,
              Number(row.querySelector('.exact').textContent.replaceAll(',', '')),
            ]),
          );
          assert.deepEqual(Object.fromEntries(rows), {
            active: peak.caching.active_bytes,
            reserved: peak.caching.reserved_bytes,
            'free in segments': peak.caching.reserved_bytes - peak.caching.active_bytes,
            'largest free block': peak.caching.largest_free_bytes,
          });
          const off = await page.locator('.books .check td').allTextContents();
          assert.ok(off.includes('0'));
          assert.ok(off.every((text) => /^[0–]$/.test(text)), off.join(' '));
        }
        assert.deepEqual(errors, []);
        assert.equal(requests.length, 1, requests.join(' '));
        await page.close();
      });
    }
  });
}
