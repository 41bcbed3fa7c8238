// SPDX-License-Identifier: Apache-2.0
// Reads the data of the run and draws the page, or says in a sentence why it cannot.
import { render } from 'preact';
import { Ranks } from './ranks';
import { readDocument } from './data/columns';
import { Run } from './data/run';
import './styles/base.css';
import './styles/timeline.css';
import './styles/alive.css';
import './styles/tables.css';
import './styles/sections.css';
import './styles/phone.css';
import './styles/print.css';

/** Canvases fall back to another font when they draw before it is there. */
const fonts = [
  '400 14px "Geist Variable"',
  '500 12px "Geist Variable"',
  '600 12px "Geist Variable"',
  '400 12px "Geist Mono Variable"',
];

async function start() {
  const app = document.getElementById('app')!;
  try {
    const [{ meta, columns }] = await Promise.all([
      readDocument(),
      Promise.all(fonts.map((font) => document.fonts.load(font))).catch(() => []),
    ]);
    render(<Ranks first={new Run(meta, columns)} />, app);
    const section = location.hash.slice(1); // some sections come a frame later
    if (section) setTimeout(() => document.getElementById(section)?.scrollIntoView(), 100);
  } catch (error) {
    const message = document.createElement('p');
    message.className = 'fail';
    message.textContent = `The data in this report cannot be read: ${(error as Error).message}`;
    app.replaceChildren(message);
    throw error;
  }
}
void start();
