// SPDX-License-Identifier: Apache-2.0
// What a reader does: moves, zooms, sorts, filters, picks steps and marks. And the numbers: what
// the page shows adds up to the bytes of the Summary.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { launch, open, views } from '../../scripts/browser.mjs';
import { bytesIn, markOf, shownStep, sum, truthOf, until, urlOf } from './expect.mjs';

const canvas = '.plot canvas';
const total = '.readout-head .num span';
let browser;
before(async () => {
  browser = await launch(views['laptop-light']);
});
after(() => browser.close());

async function visit(name, run) {
  const { page, errors } = await open(browser.context, urlOf(name));
  try {
    await run(page, truthOf(name));
    assert.deepEqual(errors, []);
  } finally {
    await page.close();
  }
}
const read = async (page, selector) => bytesIn(await page.textContent(selector));
const all = (page, selector) => page.locator(selector).allTextContents();

describe('the timeline', () => {
  it('begins at the peak, whose bytes are those of the Summary', () =>
    visit('gpt', async (page, truth) => {
      const peak = shownStep(truth).devices.cpu.peak;
      assert.equal(await read(page, total), peak.bytes);
      const rows = (await all(page, '.readout tbody .raw')).map(bytesIn);
      assert.equal(sum(rows), peak.bytes);
    }));

  it('is driven by keys', () =>
    visit('gpt', async (page) => {
      const peak = await read(page, total);
      await page.focus(canvas);
      await page.keyboard.press('ArrowRight');
      const next = await page.textContent('.event b');
      await page.keyboard.press('ArrowLeft');
      assert.notEqual(await page.textContent('.event b'), next);
      assert.equal(await read(page, total), peak);
      await page.keyboard.press('Home');
      assert.match(await page.textContent('.event b'), / 1$/);
      for (let i = 0; i < 12; i++) await page.keyboard.press('+');
      for (let i = 0; i < 3; i++) await page.keyboard.press('Shift+ArrowRight');
      await page.keyboard.press('0');
      await page.keyboard.press('p');
      assert.equal(await read(page, total), peak);
    }));

  it('is reached by Tab alone, as are the strip of steps and the table', () =>
    visit('gpt', async (page) => {
      const wanted = new Set(['plot', 'strip', 'mark', 'search', 'table', 'tile']);
      for (let i = 0; i < 150 && wanted.size > 0; i++) {
        await page.keyboard.press('Tab');
        const what = await page.evaluate(() => {
          const at = document.activeElement;
          if (at.matches('.plot canvas')) return 'plot';
          if (at.matches('.overview canvas')) return 'strip';
          if (at.matches('.mark-choice button')) return 'mark';
          if (at.matches('.table input[type=search]')) return 'search';
          if (at.matches('.table .scroll')) return 'table';
          return at.matches('.treemap .leaf') ? 'tile' : '';
        });
        wanted.delete(what);
      }
      assert.deepEqual([...wanted], []);
    }));

  it('shows the peak under the pointer at every zoom, for it is the one that is drawn', () =>
    visit('gpt', async (page, truth) => {
      const peak = shownStep(truth).devices.cpu.peak.bytes;
      const seen = await page.evaluate(
        async ([plot, readout]) => {
          const element = document.querySelector(plot);
          const { left, top, width } = element.getBoundingClientRect();
          const texts = [];
          for (let x = 56; x < width; x++) {
            const place = { clientX: left + x, clientY: top + 200, bubbles: true };
            element.dispatchEvent(new PointerEvent('pointermove', place));
            await new Promise((done) => setTimeout(done));
            texts.push(document.querySelector(readout).textContent);
          }
          return texts;
        },
        [canvas, total],
      );
      assert.equal(Math.max(...seen.map(bytesIn)), peak);
    }));

  it('zooms by dragging and by the wheel with Ctrl, and goes back by a double click', () =>
    visit('gpt', async (page) => {
      const picture = () => page.locator(canvas).evaluate((element) => element.toDataURL());
      const whole = await picture();
      const box = await page.locator(canvas).boundingBox();
      await page.mouse.move(box.x + 200, box.y + 200);
      await page.mouse.down();
      await page.mouse.move(box.x + 300, box.y + 200, { steps: 4 });
      await page.mouse.up();
      const zoomed = await until(picture, (now) => now !== whole, 'a zoomed picture');
      await page.keyboard.down('Control');
      await page.mouse.wheel(0, -100);
      await page.keyboard.up('Control');
      await until(picture, (now) => now !== zoomed, 'a picture zoomed further');
      await page.mouse.dblclick(box.x + 250, box.y + 200);
      await page.focus(canvas);
      await page.keyboard.press('p');
      await until(picture, (now) => now === whole, 'the whole picture again');
    }));

  it('zooms by two fingers', () =>
    visit('gpt', async (page) => {
      const picture = () => page.locator(canvas).evaluate((element) => element.toDataURL());
      const whole = await picture();
      await page.locator(canvas).evaluate((element) => {
        const { left, top } = element.getBoundingClientRect();
        const touch = (type, id, x) =>
          element.dispatchEvent(
            new PointerEvent(type, {
              pointerId: id,
              pointerType: 'touch',
              clientX: left + x,
              clientY: top + 200,
              bubbles: true,
            }),
          );
        touch('pointerdown', 1, 300);
        touch('pointerdown', 2, 400);
        touch('pointermove', 2, 600);
        touch('pointerup', 1, 300);
        touch('pointerup', 2, 600);
      });
      await until(picture, (now) => now !== whole, 'a zoomed picture');
    }));

  it('shows one role alone', () =>
    visit('gpt', async (page) => {
      const activations = page.locator('.readout th button', { hasText: /^activations$/ });
      await activations.click();
      assert.equal(await activations.getAttribute('aria-pressed'), 'true');
      assert.equal((await page.locator('.readout tr.faint').count()) > 2, true);
      await activations.click();
      assert.equal(await page.locator('.readout tr.faint').count(), 0);
    }));

  it('leaves roles out, and takes them back', () =>
    visit('gpt', async (page) => {
      const picture = () => page.locator(canvas).evaluate((element) => element.toDataURL());
      const whole = await picture();
      const toggle = page.locator('button[aria-label="Draw activations"]');
      await toggle.click();
      assert.equal(await toggle.getAttribute('aria-pressed'), 'false');
      assert.notEqual(await picture(), whole);
      await toggle.click();
      assert.equal(await picture(), whole);
    }));

  it('goes to a mark', () =>
    visit('gpt', async (page, truth) => {
      const step = shownStep(truth);
      await page.click('.mark-list >> text="forward edge"');
      assert.equal(await read(page, total), markOf(step, 'cpu', 'forward_edge').bytes);
      await page.click('.mark-list >> text="end"');
      assert.equal(await read(page, total), markOf(step, 'cpu', 'end').bytes);
    }));

  it('loads another step that was kept in detail, and says when one was not', () =>
    visit('gpt', async (page, truth) => {
      const [first, second] = truth.steps.filter((step) => step.detailed);
      const other = first.index === truth.shown ? second : first;
      await page.fill('.overview input', String(other.index));
      await page.keyboard.press('Enter');
      assert.equal(await read(page, total), other.devices.cpu.peak.bytes);
      assert.match(await page.textContent('#timeline .head'), new RegExp(`Step ${other.index}`));
      await page.click('.overview >> text="Last"');
      assert.match(await page.textContent('.marks-chart'), /was not kept in detail/);
      const last = truth.steps.at(-1);
      const bars = await page
        .locator('.mark-bar b')
        .evaluateAll((list) => list.map((b) => b.title));
      assert.deepEqual(
        bars.map(bytesIn),
        last.devices.cpu.marks.map((mark) => mark.bytes),
      );
      await page.focus('.overview canvas');
      await page.keyboard.press('Home');
      assert.match(await page.textContent('#timeline .head'), /Step 0/);
    }));
});

describe('what was alive', () => {
  const shown = '.table .count b[data-bytes]';
  const bytesShown = async (page) => Number(await page.getAttribute(shown, 'data-bytes'));

  it('adds up to the mark, at every mark', () =>
    visit('gpt', async (page, truth) => {
      const step = shownStep(truth);
      const buttons = page.locator('.mark-choice .buttons button');
      for (let i = 0; i < (await buttons.count()); i++) {
        await buttons.nth(i).click();
        assert.equal(await bytesShown(page), step.devices.cpu.marks[i].bytes);
      }
    }));

  it('adds up in groups and in single blocks, row by row', () =>
    visit('small', async (page, truth) => {
      const { bytes } = shownStep(truth).devices.cpu.peak;
      for (const view of ['Groups', 'Blocks']) {
        await page.click(`.table .choice >> text="${view}"`);
        assert.equal(await bytesShown(page), bytes);
        const seen = new Map();
        const scroll = page.locator('.table .scroll');
        for (let top = 0; ; top += 280) {
          await scroll.evaluate((element, y) => (element.scrollTop = y), top);
          await page.waitForTimeout(40);
          for (const [index, text] of await page
            .locator('.table tbody tr[aria-rowindex]')
            .evaluateAll((rows) =>
              rows.map((r) => [
                r.getAttribute('aria-rowindex'),
                r.querySelector('.c-raw').textContent,
              ]),
            )) {
            seen.set(index, bytesIn(text));
          }
          const done = await scroll.evaluate(
            (e) => e.scrollTop + e.clientHeight >= e.scrollHeight - 1,
          );
          if (done) break;
        }
        assert.equal(sum([...seen.values()]), bytes);
      }
    }));

  it('sorts by any column, both ways', () =>
    visit('gpt', async (page) => {
      const column = async (name) => (await all(page, `.table tbody .c-${name}`)).slice(0, 12);
      const bytes = (await column('raw')).map(bytesIn);
      assert.deepEqual(
        bytes,
        [...bytes].sort((a, b) => b - a),
      );
      await page.click('.table .c-bytes button');
      const up = (await column('raw')).map(bytesIn);
      assert.deepEqual(
        up,
        [...up].sort((a, b) => a - b),
      );
      await page.click('.table .c-module button');
      const modules = (await column('module')).map((text) => (text === 'no module' ? '' : text));
      assert.deepEqual(modules, [...modules].sort());
    }));

  it('is searched and filtered; the sum is of what is shown', () =>
    visit('gpt', async (page, truth) => {
      const step = shownStep(truth);
      await page.selectOption('.table select', { label: 'activations' });
      assert.equal(await bytesShown(page), step.devices.cpu.peak.roles.activation);
      await page.fill('.table input', 'h.3. gelu');
      const few = await page.textContent('.table .count');
      assert.match(few, /^[1-9]\d* of/);
      await page.fill('.table input', 'no such thing');
      assert.match(await page.textContent('.table .none'), /Nothing matches/);
      await page.click('.table .none button');
      assert.equal(await bytesShown(page), step.devices.cpu.peak.bytes);
    }));

  it('is filtered by a tile, and back', () =>
    visit('gpt', async (page, truth) => {
      const { bytes } = shownStep(truth).devices.cpu.peak;
      const leaf = page.locator('.leaf').first();
      await leaf.click();
      const some = await bytesShown(page);
      assert.ok(some > 0 && some < bytes);
      assert.equal(bytesIn((await leaf.getAttribute('title')).match(/= ([\d,]+)/)[1]), some);
      await page.click('.chip');
      await page.selectOption('.table select', { label: 'all roles' });
      assert.equal(await bytesShown(page), bytes);
    }));

  it('has tiles that add up', () =>
    visit('gpt', async (page, truth) => {
      const titles = await page.locator('.leaf').evaluateAll((list) => list.map((e) => e.title));
      const tiles = sum(titles.map((title) => bytesIn(title.match(/= ([\d,]+)/)[1])));
      const { bytes } = shownStep(truth).devices.cpu.peak;
      assert.ok(tiles <= bytes && tiles > 0.999 * bytes); // tiles under 2 pixels are not drawn
    }));
});

describe('the books', () => {
  const footer = (page, name) =>
    page.locator('.books tfoot tr', { hasText: name }).locator('td').allTextContents();

  it('show the sum, the allocator’s count and their difference at every mark', () =>
    visit('gpt', async (page, truth) => {
      const { marks } = shownStep(truth).devices.cpu;
      const values = async (name) => (await footer(page, name)).map(bytesIn);
      assert.deepEqual(
        await values('in bytes'),
        marks.map((mark) => mark.bytes),
      );
      assert.deepEqual(
        await values('own count'),
        marks.map((mark) => mark.allocator_bytes),
      );
      assert.deepEqual(
        await values('difference'),
        marks.map(() => 0),
      );
      assert.match(await page.textContent('.books-box .note'), /The books close/);
    }));

  it('say so when they are off', () =>
    visit('everything', async (page) => {
      assert.match(await page.textContent('.books-box .note'), /off by up to 512/);
      assert.ok((await footer(page, 'difference')).every((text) => bytesIn(text) === 512));
    }));

  it('keep the peak among the marks of many micro-steps', () =>
    visit('accumulation', async (page, truth) => {
      const { peak, marks } = shownStep(truth).devices.cpu;
      const peaks = await page.locator('.books tfoot .at-peak').allTextContents();
      assert.equal(bytesIn(peaks[1]), peak.bytes);
      assert.ok(marks.length > 7);
      assert.match(await page.textContent('.books-box .note'), /are not shown/);
    }));
});

describe('theory and FLOPs', () => {
  it('show every row, with a cause', () =>
    visit('gpt', async (page, truth) => {
      const rows = truth.theory.filter((row) => row.unit === 'bytes');
      const titles = await page
        .locator('.rules tbody tr')
        .evaluateAll((list) => list.map((r) => r.querySelector('td.num').title));
      assert.deepEqual(
        titles.map(bytesIn),
        rows.map((row) => row.measured),
      );
    }));

  it('show the closed form, or say why there is none', () =>
    visit('everything', async (page, truth) => {
      const rows = truth.theory.filter((row) => row.unit === 'bytes');
      const cells = await page
        .locator('.rules tbody .c-closed')
        .evaluateAll((list) => list.map((cell) => [cell.textContent, cell.title]));
      assert.equal(cells.length, rows.length);
      rows.forEach((row, i) => {
        if (row.closed_form === null) assert.equal(cells[i][1], row.closed_form_cause);
        else assert.equal(bytesIn(cells[i][1].split(':')[0]), Math.round(row.closed_form));
      });
      await page.goto(urlOf('gpt'));
      await page.waitForSelector('html[data-ready]');
      assert.match(
        await page.textContent('#theory .note'),
        /Closed form.*: not applicable because the model’?'?s configuration is not known/,
      );
    }));

  it('say MFU and HFU where the device is known, and why not where it is none', () =>
    visit('everything', async (page, truth) => {
      const text = await page.textContent('#flops');
      assert.match(text, /MFU41\.2\u00a0%/);
      assert.match(text, /HFU44\.7\u00a0%/);
      assert.ok(text.includes(truth.utilization.cause));
      assert.match(text, /its ridge: 10 FLOP a byte/);
      await page.goto(urlOf('gpt'));
      await page.waitForSelector('html[data-ready]');
      assert.match(await page.textContent('#flops'), /MFU and HFU: not applicable because/);
    }));

  it('count what the Summary counts', () =>
    visit('gpt', async (page, truth) => {
      const { flops } = shownStep(truth);
      const counted = flops.forward + flops.backward + flops.recompute + flops.optimizer;
      const titles = await page
        .locator('.numbers dt + dd')
        .evaluateAll((list) => list.map((d) => d.title));
      assert.equal(bytesIn(titles[0]), counted);
      assert.equal(bytesIn(titles[1]), flops.torch);
      assert.equal(bytesIn(titles[2]), flops.elementwise);
      await page.click('#flops .choice >> text="Each"');
      if (await page.locator('#flops .two > div:first-child .more').count()) {
        await page.click('#flops .two > div:first-child .more');
      }
      const each = await page
        .locator('#flops .two > div:first-child tbody tr')
        .evaluateAll((rows) => rows.map((r) => r.querySelector('td.num').title));
      assert.equal(sum(each.map(bytesIn)), counted);
    }));
});
