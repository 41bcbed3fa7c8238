// SPDX-License-Identifier: Apache-2.0
// The page in the distribution's own Firefox, driven by its Marionette protocol: Playwright drives
// only a Firefox of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { bytesIn, shots, shownStep, truthOf, urlOf } from './expect.mjs';

const candidates = ['/usr/bin/firefox-esr', '/usr/bin/firefox'];
const firefox = process.env.FIREFOX || candidates.find((path) => existsSync(path));
if (!firefox) {
  console.error('No Firefox found: install firefox-esr, or set FIREFOX to its path.');
  process.exit(77);
}

/** Messages are "LENGTH:[type, id, error or name, result or parameters]". */
class Marionette {
  #socket;
  #text = Buffer.alloc(0);
  #waiting = new Map();
  #next = 1;

  static async connect(port) {
    for (let attempt = 0; ; attempt++) {
      try {
        const one = new Marionette();
        await one.#open(port);
        return one;
      } catch (error) {
        if (attempt > 240) throw error;
        await new Promise((done) => setTimeout(done, 250));
      }
    }
  }
  #open(port) {
    return new Promise((resolve, reject) => {
      this.#socket = createConnection(port, '127.0.0.1');
      this.#socket.on('error', reject);
      this.#socket.on('data', (data) => {
        this.#text = Buffer.concat([this.#text, data]);
        this.#read(resolve);
      });
    });
  }
  #read(greeted) {
    for (;;) {
      const colon = this.#text.indexOf(':');
      if (colon < 0) return;
      const end = colon + 1 + Number(this.#text.subarray(0, colon));
      if (this.#text.length < end) return;
      const message = JSON.parse(this.#text.subarray(colon + 1, end));
      this.#text = this.#text.subarray(end);
      if (!Array.isArray(message)) {
        greeted();
        continue;
      }
      const [, id, error, result] = message;
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) reject(new Error(error.message));
      else resolve(result);
    }
  }
  send(name, parameters = {}) {
    const id = this.#next++;
    const text = JSON.stringify([0, id, name, parameters]);
    this.#socket.write(`${Buffer.byteLength(text)}:${text}`);
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }
  async run(script, args = []) {
    return (await this.send('WebDriver:ExecuteScript', { script, args })).value;
  }
  close() {
    this.#socket?.destroy();
  }
}

const PORT = 29_000 + (process.pid % 1000);
let browser;
let profile;
let driver;
before(async () => {
  profile = mkdtempSync(join(tmpdir(), 'tally-firefox-'));
  writeFileSync(
    join(profile, 'user.js'),
    [
      `user_pref("marionette.port", ${PORT});`,
      'user_pref("datareporting.policy.dataSubmissionEnabled", false);',
      'user_pref("toolkit.telemetry.enabled", false);',
      'user_pref("app.update.enabled", false);',
      'user_pref("browser.shell.checkDefaultBrowser", false);',
      'user_pref("network.captive-portal-service.enabled", false);',
      'user_pref("network.connectivity-service.enabled", false);',
    ].join('\n'),
  );
  browser = spawn(firefox, ['--headless', '--marionette', '--no-remote', '--profile', profile], {
    stdio: 'ignore',
    env: { ...process.env, HOME: profile, MOZ_HEADLESS: '1' },
  });
  driver = await Marionette.connect(PORT);
  await driver.send('WebDriver:NewSession', { capabilities: {} });
  await driver.send('WebDriver:SetWindowRect', { width: 1440, height: 900 });
});
after(async () => {
  await driver?.send('Marionette:Quit', { flags: ['eForceQuit'] }).catch(() => {});
  driver?.close();
  browser?.kill();
  await new Promise((done) => (browser.exitCode === null ? browser.on('exit', done) : done()));
  rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

async function visit(name) {
  await driver.send('WebDriver:Navigate', { url: urlOf(name) });
  for (let attempt = 0; attempt < 240; attempt++) {
    if (await driver.run('return document.documentElement.dataset.ready === "1"')) return;
    const failed = await driver.run('return document.querySelector(".fail")?.textContent ?? null');
    assert.equal(failed, null);
    await new Promise((done) => setTimeout(done, 250));
  }
  assert.fail(`${name} was not ready`);
}
const text = (selector) =>
  driver.run('return document.querySelector(arguments[0])?.textContent ?? null', [selector]);

for (const name of ['gpt', 'everything', 'small', 'long']) {
  it(`${name} is drawn from its file`, async () => {
    await visit(name);
    const heights = await driver.run(
      'return [...document.querySelectorAll("main > section")].map((s) => s.offsetHeight)',
    );
    assert.ok(heights.length >= 6 && heights.every((height) => height > 40), String(heights));
    assert.equal(
      await driver.run('return performance.getEntriesByType("resource").filter((r) => !r.name.startsWith("data:")).length'),
      0,
    );
    if (name !== 'long') {
      const truth = truthOf(name);
      const device = truth.device;
      const { peak } = shownStep(truth).devices[device];
      assert.equal(bytesIn(await text('.readout-head .num span')), peak.bytes);
      assert.equal(
        await driver.run('return Number(document.querySelector(".table .count b[data-bytes]").dataset.bytes)'),
        peak.bytes,
      );
    }
    if (shots) {
      mkdirSync(shots, { recursive: true });
      const { value } = await driver.send('WebDriver:TakeScreenshot', { full: true });
      writeFileSync(join(shots, `${name}-firefox.png`), Buffer.from(value, 'base64'));
    }
  });
}

it('sorts, filters and zooms', async () => {
  await visit('gpt');
  const picture = () => driver.run('return document.querySelector(".plot canvas").toDataURL()');
  const whole = await picture();
  await driver.run('document.querySelector(\'button[aria-label="Zoom in"]\').click()');
  await new Promise((done) => setTimeout(done, 200));
  assert.notEqual(await picture(), whole);
  await driver.run('document.querySelector(".table .c-bytes button").click()');
  await new Promise((done) => setTimeout(done, 200));
  const column = await driver.run(
    'return [...document.querySelectorAll(".table tbody .c-raw")].map((cell) => cell.textContent)',
  );
  const bytes = column.map(bytesIn);
  assert.deepEqual(
    bytes,
    [...bytes].sort((a, b) => a - b),
  );
});
