// SPDX-License-Identifier: Apache-2.0
// Every page, in light and dark, on a laptop and a phone: it draws, loads nothing, complains about
// nothing, fits the screen, is accessible. A picture of each stays in the build folder.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { launch, open, views } from '../../scripts/browser.mjs';
import { shots, urlOf } from './expect.mjs';

const axe = readFileSync('node_modules/axe-core/axe.min.js', 'utf8');
const full = ['gpt', 'everything']; // in every view
const pages = [...full, 'card', 'small', 'accumulation', 'leak', 'bare', 'long', 'ranks'];
const always = ['answer', 'timeline', 'theory', 'trend', 'unknown'];

async function checkAccess(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    axe.run(document, { resultTypes: ['violations'] }),
  );
  const found = violations.map(
    (v) => `${v.impact} ${v.id}: ${v.nodes[0].html.slice(0, 160)} ${v.nodes[0].failureSummary}`,
  );
  assert.deepEqual(found, []);
}
async function shoot(page, name) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  await page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
}

for (const [name, view] of Object.entries(views)) {
  describe(name, () => {
    let browser;
    before(async () => {
      browser = await launch({ ...view, bypassCSP: true }); // for axe, which is put in from here
    });
    after(() => browser.close());

    for (const which of name.match(/^(laptop-light|phone-dark)$/) ? pages : full) {
      it(which, async () => {
        const { page, errors, requests } = await open(browser.context, urlOf(which));
        const wanted = [...always];
        if (which !== 'bare') wanted.push('peak', 'flops', 'verdicts');
        for (const id of wanted) {
          const box = await page.locator(`#${id}`).boundingBox();
          assert.ok(box && box.height > 40, `section ${id} is drawn`);
        }
        assert.deepEqual(errors, []);
        assert.equal(requests.length, 1, requests.join(' '));
        const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wider <= 0, `scrolls sideways by ${wider}`);

        await checkAccess(page);
        await shoot(page, `${which}-${name}`);
        await page.close();
      });
    }
    for (const which of ['compare', 'compare4']) {
      it(which, async () => {
        const page = await browser.context.newPage();
        const requests = [];
        page.on('request', (request) => requests.push(request.url()));
        await page.goto(urlOf(which));
        assert.match(await page.textContent('h1'), /^The peak (grew by|is the same) /);
        const runs = which === 'compare' ? 2 : 4;
        assert.equal(await page.locator('.runs li').count(), runs);
        assert.equal(await page.locator('#totals + p + div tbody tr').first().locator('td').count(), runs + 2);
        const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wider <= 0, `scrolls sideways by ${wider}`);
        await checkAccess(page);
        assert.equal(requests.length, 1);
        await shoot(page, `${which}-${name}`);
        await page.close();
      });
    }
  });
}
