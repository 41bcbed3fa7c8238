// SPDX-License-Identifier: Apache-2.0
// Judgements as cards: glyph, word, sentence, evidence.
import type { Remedy, TradeOff, Verdict } from './data/layout';
import { capital, clean, human, raw } from './format';
import { Section, usePage } from './ui';

const titles: Record<string, string> = {
  leak: 'leak',
  oom: 'out of memory',
  checkpointing: 'checkpointing',
  accumulation: 'gradient accumulation',
  rank_imbalance: 'rank imbalance',
};

const glyphs: Record<Verdict['tone'], string> = { good: '✓', bad: '!', open: '?' };

/** What would help, the most bytes first. */
function Remedies({ remedies }: { remedies: Remedy[] }) {
  const ranked = [...remedies].sort((a, b) => b.bytes - a.bytes);
  return (
    <dl class="remedies">
      {ranked.map((remedy) => (
        <div key={remedy.text}>
          <dt>
            <bdi>{clean(remedy.text)}</bdi>
          </dt>
          <dd class="num" title={remedy.bytes ? raw(remedy.bytes) : ''}>
            {remedy.bytes ? `saves ${human(remedy.bytes)}` : ''}
          </dd>
          {remedy.cost !== '' && <dd>{clean(remedy.cost)}</dd>}
        </div>
      ))}
    </dl>
  );
}

const cut = (row: TradeOff) =>
  `${row.accumulated ? 'several of ' : ''}${row.parts === 1 ? 'the batch' : `1/${row.parts}`}`;

/** Peaks of other settings, predicted from the step shown. */
function TradeOffTable({ rows }: { rows: TradeOff[] }) {
  const ways = [...new Set(rows.map((row) => row.checkpointing))];
  const columns = rows.filter((row) => row.checkpointing === ways[0]);
  return (
    <div class="scroll flat trade-off" tabIndex={0} role="region" aria-label="Other settings">
      <table class="grid">
        <caption>What the peak would be, by batch, accumulation and checkpointing</caption>
        <thead>
          <tr>
            <th scope="col">checkpointing</th>
            {columns.map((row) => (
              <th scope="col" class="num" key={cut(row)}>
                {cut(row)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {ways.map((way) => {
            const cells = rows.filter((row) => row.checkpointing === way);
            const extra = cells[0]?.extra_flops ?? 0;
            return (
              <tr key={way}>
                <th scope="row">
                  <bdi>{clean(way)}</bdi>
                  {extra > 0 && ` (+${(100 * extra).toFixed(0)} % FLOPs)`}
                </th>
                {cells.map((row) => (
                  <td class="num" key={cut(row)} title={raw(row.peak)}>
                    {row.recorded ? <b>{human(row.peak)}</b> : human(row.peak)}
                  </td>
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

export function Verdicts() {
  const { run } = usePage();
  const { verdicts, trade_off: tradeOff } = run.meta;
  const bad = verdicts.filter((verdict) => verdict.tone === 'bad').length;
  return (
    <Section
      id="verdicts"
      title="Verdicts"
      take={
        bad > 0
          ? `${bad} of ${verdicts.length} need a look. Each says what it looked at.`
          : 'Judged over all recorded steps. Each says what it looked at.'
      }
    >
      <div class="cards">
        {verdicts.map((verdict) => {
          const { tone } = verdict;
          return (
            <article class={`card ${tone}`} key={verdict.kind}>
              <p class="state">
                <i aria-hidden="true">{glyphs[tone]}</i>
                {titles[verdict.kind] ?? clean(verdict.kind)}
                {verdict.bytes !== 0 && (
                  <b class="num" title={raw(verdict.bytes)}>
                    {human(verdict.bytes)}
                  </b>
                )}
              </p>
              <h3>{capital(clean(verdict.verdict))}</h3>
              {verdict.remedies.length > 0 && <Remedies remedies={verdict.remedies} />}
              {verdict.evidence.length > 0 && (
                <ul>
                  {verdict.evidence.map((line) => (
                    <li key={line}>
                      <bdi>{clean(line)}</bdi>
                    </li>
                  ))}
                </ul>
              )}
            </article>
          );
        })}
      </div>
      {tradeOff.length > 0 && <TradeOffTable rows={tradeOff} />}
    </Section>
  );
}
