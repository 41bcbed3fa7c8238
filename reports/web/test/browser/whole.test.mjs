// SPDX-License-Identifier: Apache-2.0
// The page as a whole: names, links, devices, ranks, themes, verdicts.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { launch, open, views } from '../../scripts/browser.mjs';
import { bytesIn, shownStep, truthOf, urlOf } from './expect.mjs';

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

describe('the page', () => {
  it('shows hostile names as text', () =>
    visit('small', async (page) => {
      await page.fill('.table input', '</script>');
      const text = await page.textContent('.table tbody');
      assert.match(text, /<\/script><script>alert/);
      assert.match(text, /⟨U\+202E⟩/);
      assert.equal(await page.locator('#app script').count(), 0);
    }));

  it('has a sentence whose numbers lead somewhere', () =>
    visit('everything', async (page, truth) => {
      const text = (await page.textContent('h1')).replaceAll('\u00a0', ' ').replace('\u2212', '-');
      assert.equal(text, truth.headline);
      const targets = await page.locator('h1 a').evaluateAll((l) => l.map((a) => a.hash));
      assert.ok(targets.length >= 6);
      for (const target of targets) assert.equal(await page.locator(target).count(), 1);
    }));

  it('switches devices', () =>
    visit('everything', async (page, truth) => {
      const step = shownStep(truth);
      assert.equal(await read(page, total), step.devices['cuda:0'].peak.bytes);
      await page.click('.device-choice >> text="cpu"');
      assert.equal(await read(page, total), step.devices.cpu.peak.bytes);
    }));

  it('shows what hardware counters told, and the roofline of the bytes that they counted', () =>
    visit('card', async (page, truth) => {
      const step = shownStep(truth);
      const { executed } = step.flops;
      const numbers = await page
        .locator('.counted dd[title]')
        .evaluateAll((list) => list.map((dd) => Number(dd.title.replaceAll(',', ''))));
      assert.deepEqual(numbers, [
        Math.round(executed.tensor),
        Math.round(executed.scalar),
        Math.round(executed.dram_bytes),
      ]);
      const { roofline } = truth.utilization;
      const dots = await page
        .locator('.roof-dot title')
        .evaluateAll((list) => list.map((title) => title.textContent.split('\n')[0]));
      assert.deepEqual(dots, roofline.map((point) => point.operator));
      // No dot is above the roof.
      const above = await page.evaluate(() => {
        const [from, ridge, to] = document
          .querySelector('.roof')
          .getAttribute('points')
          .split(' ')
          .map((point) => point.split(',').map(Number));
        const roofAt = (x) =>
          x >= ridge[0]
            ? to[1]
            : from[1] + ((x - from[0]) / (ridge[0] - from[0])) * (ridge[1] - from[1]);
        return [...document.querySelectorAll('.roof-dot')].filter(
          (dot) => dot.cy.baseVal.value < roofAt(dot.cx.baseVal.value),
        ).length;
      });
      assert.equal(above, 0);
      assert.match(await page.textContent('#flops .caption'), /Roofline: executed FLOPs over/);
    }));

  it('says which numbers of an allocator are off, and that its rules were not followed', () =>
    visit('everything', async (page) => {
      const off = await page.locator('.books .check').last().locator('td').allTextContents();
      assert.ok(off.every((text) => text === '2,097,152'), off.join(' '));
      assert.match(await page.textContent('.caching-head'), /did not follow its known rules/);
    }));

  it('sorts and searches by who holds a block', () =>
    visit('gpt', async (page) => {
      await page.click('.table .choice >> text="Blocks"');
      await page.fill('.table input', 'the optimizer');
      const held = await all(page, '.table tbody .c-saved');
      assert.ok(held.length > 5 && held.every((text) => text === 'the optimizer'));
      await page.fill('.table input', '');
      await page.click('.table .c-saved button');
      const sorted = await all(page, '.table tbody .c-saved');
      assert.deepEqual(sorted, [...sorted].sort());
    }));

  it('switches themes', () =>
    visit('small', async (page) => {
      const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const light = await ground();
      await page.click('.theme');
      assert.notEqual(await ground(), light);
    }));

  it('ranks the remedies of a verdict by what they save', () =>
    visit('everything', async (page) => {
      const rows = await all(page, '.remedies div');
      assert.match(rows[0], /^checkpoint the attention cores only.*saves 96\.0\u00a0MiB.*\+2 % FLOPs/s);
      assert.match(rows[1], /^checkpoint h\.1 and h\.3 as well.*saves 72\.0\u00a0MiB/s);
      assert.match(rows[2], /<\/script>/);
    }));

  it('switches ranks', async () => {
    const { page, errors, requests } = await open(browser.context, urlOf('ranks'));
    const truth = (rank) => truthOf(`ranks-${rank}`);
    const peakOf = (rank) => shownStep(truth(rank)).devices.cpu.peak.bytes;
    assert.equal(await read(page, total), peakOf(2), 'opens with the highest');
    const titles = await page
      .locator('.rank-table tbody tr')
      .evaluateAll((rows) => rows.map((row) => row.querySelector('td.num').title));
    assert.deepEqual(titles.map(bytesIn), [0, 1, 2, 3].map(peakOf));
    assert.match(await page.textContent('#ranks'), /Uneven: rank 2 peaks at/);
    for (const rank of [0, 3, 2]) {
      await page.selectOption('select[aria-label="Rank"]', String(rank));
      await page.waitForFunction(
        (wanted) => document.querySelector('.rank-table [aria-current=true] th')?.textContent.startsWith(wanted),
        String(rank),
      );
      assert.equal(await read(page, total), peakOf(rank));
    }
    assert.deepEqual(errors, []);
    assert.equal(requests.length, 1);
    await page.close();
  });

  it('unpacks its data where the browser cannot', async () => {
    const page = await browser.context.newPage();
    await page.addInitScript(() => delete globalThis.DecompressionStream);
    await page.goto(urlOf('gpt'));
    await page.waitForSelector('html[data-ready]');
    assert.equal(await page.evaluate(() => typeof DecompressionStream), 'undefined');
    assert.equal(await read(page, total), shownStep(truthOf('gpt')).devices.cpu.peak.bytes);
    await page.close();
  });

  it('flags what grows', () =>
    visit('leak', async (page) => {
      assert.match(await page.textContent('.card.bad'), /leak.*suspected/is);
      assert.match(await page.textContent('.trend-table'), /held outputs.*grew in each/s);
    }));
});
