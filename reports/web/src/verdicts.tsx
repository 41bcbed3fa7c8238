// SPDX-License-Identifier: Apache-2.0
// Judgements as cards: glyph, word, sentence, evidence.
import type { Remedy, Verdict } from './data/layout';
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

export function Verdicts() {
  const { run } = usePage();
  const { verdicts } = run.meta;
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
    </Section>
  );
}
