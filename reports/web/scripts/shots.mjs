// SPDX-License-Identifier: Apache-2.0
// node scripts/shots.mjs REPORT.html FOLDER [VIEW ...]: full-page pictures of a report.
import { mkdirSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { launch, open, views } from './browser.mjs';

const [report, folder, ...only] = process.argv.slice(2);
if (!folder) {
  console.error('usage: node scripts/shots.mjs REPORT.html FOLDER [VIEW ...]');
  process.exit(2);
}
mkdirSync(folder, { recursive: true });
for (const [name, view] of Object.entries(views)) {
  if (only.length > 0 && !only.includes(name)) continue;
  const { context, close } = await launch(view);
  const { page, errors, requests } = await open(context, 'file://' + resolve(report));
  await page.waitForTimeout(200);
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  const path = join(folder, `${basename(report, '.html')}-${name}.png`);
  await page.screenshot({ path, fullPage: true });
  console.log(path, 'errors', errors, 'requests', requests.length, 'wider', wider);
  await close();
}
