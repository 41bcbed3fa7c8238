// SPDX-License-Identifier: Apache-2.0
// The sentence, whose numbers lead to their place below, and the peak as one bar.
import type { StepView } from './data/types';
import { clean, human, NBSP, percent, raw } from './format';
import { fillStyle, Swatch, useHatch, usePage } from './ui';

interface Part {
  text: string;
  section?: string;
}

const NUMBER =
  /(?:[-+]?\d[\d,.]* (?:%|B|[KMGT]iB|[kMGTPE]?FLOPs?)|less than 0\.1 %|step \d+(?:,\d{3})*)/g;

/** Splits the sentence at its numbers. The module's name is left alone, whatever it holds. */
export function linked(headline: string, module: string): Part[] {
  const parts: Part[] = [];
  const start = module ? headline.indexOf(module) : -1;
  const inName = (at: number) => start >= 0 && at >= start && at < start + module.length;
  const theory = headline.indexOf('Theory says', start < 0 ? 0 : start + module.length);
  const after = theory < 0 ? -1 : headline.indexOf(').', theory);
  const sectionOf = (at: number, text: string) => {
    if (after >= 0 && at > after + 1) return 'verdicts';
    if (theory >= 0 && at > theory) return 'theory';
    return text.endsWith('%') ? 'peak' : 'timeline';
  };
  let done = 0;
  for (const match of headline.matchAll(NUMBER)) {
    if (inName(match.index)) continue;
    parts.push({ text: headline.slice(done, match.index) });
    parts.push({
      text: match[0].replaceAll(' ', NBSP).replace(/^-/, '\u2212'),
      section: sectionOf(match.index, match[0]),
    });
    done = match.index + match[0].length;
  }
  parts.push({ text: headline.slice(done) });
  return parts.filter((part) => part.text !== '');
}

const SMALL = 0.01; // of the peak: folded into "others"

export function Answer({ step }: { step: StepView }) {
  const { run } = usePage();
  const hatch = useHatch();
  const { peak } = step;
  const headline = linked(run.meta.headline, peak?.module ?? '');
  const all = peak?.bytes ?? 0;
  const roles = peak ? peak.roles.map((bytes, role) => ({ role, bytes })) : [];
  const large = roles.filter(({ bytes }) => bytes / all >= SMALL);
  const rest = all - large.reduce((sum, { bytes }) => sum + bytes, 0);
  const titleOf = (role: number) => run.meta.roles[role].title;
  return (
    <section id="answer" aria-label="The answer">
      <h1>
        {headline.map((part, i) =>
          part.section ? (
            <a key={i} href={`#${part.section}`}>
              {part.text}
            </a>
          ) : (
            <bdi key={i}>{clean(part.text)}</bdi>
          ),
        )}
      </h1>
      {all > 0 && (
        <>
          <div
            class="composition"
            role="img"
            aria-label={large
              .map(({ role, bytes }) => `${titleOf(role)} ${percent(bytes / all)}`)
              .join(', ')}
          >
            {large.map(({ role, bytes }) => (
              <div
                key={role}
                class={hatch(role)}
                style={{ ...fillStyle(role), flexGrow: bytes }}
                title={`${titleOf(role)}: ${human(bytes)} = ${raw(bytes)}`}
              />
            ))}
            {rest > 0 && (
              <div
                style={{ background: 'var(--rule2)', flexGrow: rest }}
                title={`all others: ${human(rest)} = ${raw(rest)}`}
              />
            )}
          </div>
          <ul class="keys">
            {large.map(({ role, bytes }) => (
              <li key={role} title={run.meta.roles[role].meaning}>
                <Swatch role={role} />
                <span>{titleOf(role)}</span>
                <b class="num" title={raw(bytes)}>
                  {human(bytes)}
                </b>
                <em class="num">{percent(bytes / all, 0)}</em>
              </li>
            ))}
            {rest > 0 && (
              <li>
                <i class="swatch" style={{ '--fill': 'var(--rule2)' }} aria-hidden="true" />
                <span>others</span>
                <b class="num" title={raw(rest)}>
                  {human(rest)}
                </b>
                <em class="num">{percent(rest / all)}</em>
              </li>
            )}
          </ul>
        </>
      )}
    </section>
  );
}
