// SPDX-License-Identifier: Apache-2.0
// Size and speed of a long run's page; what a damaged page says; paper.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { launch, open, views } from '../../scripts/browser.mjs';
import { folder, urlOf } from './expect.mjs';

const MiB = 2 ** 20;
let browser;
let scratch;
before(async () => {
  browser = await launch(views['laptop-light']);
  scratch = mkdtempSync(join(tmpdir(), 'tally-pages-'));
});
after(async () => {
  await browser.close();
  rmSync(scratch, { recursive: true, force: true });
});

it('10,000 steps, none like another, make less than 3 MiB', () => {
  const bytes = statSync(join(folder, 'long.html')).size;
  console.log(`long.html: ${(bytes / MiB).toFixed(2)} MiB`);
  assert.ok(bytes < 3 * MiB);
});

/** Loads the page; milliseconds on the clock, and of the processor on the page's main thread. */
async function load(url) {
  const page = await browser.context.newPage();
  const session = await browser.context.newCDPSession(page);
  await session.send('Performance.enable', { timeDomain: 'threadTicks' });
  await page.goto(url);
  await page.waitForSelector('html[data-ready]', { timeout: 90_000 });
  const [answer, ready] = await page.evaluate(() =>
    ['tally:answer', 'tally:ready'].map((name) => performance.getEntriesByName(name)[0].startTime),
  );
  const { metrics } = await session.send('Performance.getMetrics');
  const processor = 1000 * metrics.find(({ name }) => name === 'TaskDuration').value;
  await page.close();
  return { answer, ready, processor };
}

// On a machine that others keep busy the clock says nothing: there the processor's time counts.
it('and are there within a second', async () => {
  const loads = [];
  for (let i = 0; i < 5; i++) loads.push(await load(urlOf('long')));
  for (const { answer, ready, processor } of loads) {
    console.log(`answer ${answer | 0} ms, page ${ready | 0} ms, processor ${processor | 0} ms`);
  }
  const least = (key) => Math.min(...loads.map((one) => one[key]));
  const busy = loadavg()[0] > 1.5 * cpus().length;
  assert.ok(busy ? least('processor') < 1000 : least('ready') < 1000, `busy: ${busy}`);
});

it('a step of a long run is picked at once', async () => {
  const { page, errors } = await open(browser.context, urlOf('long'));
  assert.match(await page.textContent('.overview-text'), /of 10,000:/);
  await page.fill('.overview input', '7777');
  await page.keyboard.press('Enter');
  assert.match(await page.textContent('.marks-chart'), /Step 7777 was not kept in detail/);
  await page.click('.overview-text .link');
  assert.equal(await page.locator('.plot canvas').count(), 1);
  assert.deepEqual(errors, []);
  await page.close();
});

const damaged = {
  'without its columns': (html) => html.replace(/(id="tally-columns">)[^<]*/, '$1'),
  'cut in its columns': (html) => html.replace(/(id="tally-columns">.{400})[^<]*/, '$1'),
  'of another layout': (html) => html.replace(/"version":\d+/, '"version":99'),
  'without its names': (html) => html.replace(/(id="tally-meta">.{100})[^<]*/, '$1'),
};
for (const [what, damage] of Object.entries(damaged)) {
  it(`a page ${what} says so in a sentence`, async () => {
    const html = readFileSync(join(folder, 'small.html'), 'utf8');
    const path = join(scratch, 'damaged.html');
    writeFileSync(path, damage(html));
    assert.notEqual(damage(html), html);
    const page = await browser.context.newPage();
    await page.goto('file://' + path);
    assert.match(await page.textContent('.fail'), /cannot be read: ./);
    await page.close();
  });
}

it('prints', async () => {
  const { page, errors } = await open(browser.context, urlOf('gpt'));
  const path = join(scratch, 'report.pdf');
  await page.pdf({ path, format: 'A4', printBackground: true });
  const pdf = readFileSync(path, 'latin1');
  const pages = pdf.match(/\/Type\s*\/Page\b/g).length;
  assert.ok(pages >= 6 && pages <= 12, `${pages} pages`);
  assert.deepEqual(errors, []);
  await page.close();
});

it('is on paper what a reader cannot open there: light, whole, as wide as the paper', async () => {
  const dark = await launch(views['laptop-dark']);
  const { page, errors } = await open(dark.context, urlOf('gpt'));
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  const rows = () => page.locator('.table tbody tr:not(.spacer)').count();
  const few = await rows();
  assert.equal(await theme(), 'dark');
  // What a browser does before and after it prints, on a page of A4's width.
  await page.emulateMedia({ media: 'print' });
  await page.setViewportSize({ width: 703, height: 1000 });
  await page.evaluate(() => dispatchEvent(new Event('beforeprint')));
  assert.equal(await theme(), 'light');
  assert.equal(await rows(), 40);
  assert.match(await page.textContent('.table .note'), /more rows hold/);
  assert.equal(await page.locator('nav, .theme, .buttons, .more').locator('visible=true').count(), 0);
  // The rows in view and what is said of the others are everything.
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wider <= 0, `wider than the paper by ${wider}`);
  const canvas = await page.locator('.plot canvas').boundingBox();
  assert.ok(canvas.width <= 690, `${canvas.width}`);
  for (const id of ['answer', 'timeline', 'peak', 'theory', 'flops', 'verdicts', 'trend', 'unknown']) {
    const box = await page.locator(`#${id}`).boundingBox();
    assert.ok(box.height > 40, id);
  }
  await page.evaluate(() => dispatchEvent(new Event('afterprint')));
  assert.equal(await theme(), 'dark');
  assert.ok((await rows()) <= few);
  assert.deepEqual(errors, []);
  await dark.close();
});

it('says the sentence without JavaScript', async () => {
  const plain = await launch({ ...views['laptop-light'], javaScriptEnabled: false });
  const page = await plain.context.newPage();
  await page.goto(urlOf('gpt'));
  assert.match(await page.textContent('noscript'), /Peak [\d.]+ [KMG]iB in step \d+/);
  await plain.close();
});
