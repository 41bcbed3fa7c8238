// SPDX-License-Identifier: Apache-2.0
// The ranks of a distributed run: which one the page shows, and all of them side by side.
import { useState } from 'preact/hooks';
import { App } from './app';
import { hasRank, readDocument } from './data/columns';
import { Run } from './data/run';
import { capital, clean, duration, fix, human, raw, signedPercent } from './format';
import { fillStyle, Section, useHatch, usePage } from './ui';

/** The page of one rank; another is unpacked when it is first asked for. */
export function Ranks({ first }: { first: Run }) {
  const [runs, setRuns] = useState(() => new Map([[first.meta.rank, first]]));
  const [rank, setRank] = useState(first.meta.rank);
  const choose = (next: number) => {
    if (runs.has(next)) {
      setRank(next);
      return;
    }
    void readDocument(next).then(({ meta, columns }) => {
      setRuns((known) => new Map(known).set(next, new Run(meta, columns)));
      setRank(next);
    });
  };
  const known = (one: number) => runs.has(one) || one === first.meta.rank || hasRank(one);
  const others = first.meta.ranks.map((row) => row.rank).filter(known);
  return <App key={rank} run={runs.get(rank)!} ranks={others} onRank={choose} />;
}

const UNEVEN = 0.05; // as analysis/ranks.cpp

/** Each rank's highest peak, against the mean. */
export function RankTable() {
  const { run } = usePage();
  const hatch = useHatch();
  const { ranks } = run.meta;
  const mean = ranks.reduce((sum, row) => sum + row.peak, 0) / ranks.length;
  const most = Math.max(1, ...ranks.map((row) => row.peak));
  const roles = run.meta.roles.map((_, role) => role);
  return (
    <Section id="ranks" title="Across ranks" take={<Takeaway mean={mean} />}>
      <div class="scroll flat" tabIndex={0} role="region" aria-label="Ranks side by side">
        <table class="grid rank-table">
          <thead>
            <tr>
              <th scope="col">rank</th>
              <th scope="col" class="c-track">
                highest peak
              </th>
              <th scope="col" class="num">
                bytes
              </th>
              <th scope="col" class="num">
                to the mean
              </th>
              <th scope="col" class="num">
                in step
              </th>
              <th scope="col" class="num">
                a step takes
              </th>
              <th scope="col">ended</th>
            </tr>
          </thead>
          <tbody>
            {ranks.map((row) => {
              const off = mean > 0 ? row.peak / mean - 1 : 0;
              return (
                <tr key={row.rank} aria-current={row.rank === run.meta.rank}>
                  <th scope="row" title={clean(row.recording)}>
                    {row.rank === run.meta.rank ? <b>{row.rank}, shown here</b> : row.rank}
                  </th>
                  <td class="c-track">
                    <div class="track" style={{ width: `${(row.peak / most) * 100}%` }}>
                      {roles
                        .filter((role) => row.roles[role] > 0)
                        .map((role) => (
                          <div
                            key={role}
                            class={'fill' + hatch(role)}
                            style={{ ...fillStyle(role), flexGrow: row.roles[role] }}
                            title={`${run.meta.roles[role].title}: ${raw(row.roles[role])}`}
                          />
                        ))}
                    </div>
                  </td>
                  <td class="num" title={raw(row.peak)}>
                    {human(row.peak)}
                  </td>
                  <td class={'num' + (off > UNEVEN ? ' alarm' : '')}>{signedPercent(off)}</td>
                  <td class="num">{fix(row.peak_step)}</td>
                  <td class="num">{duration(row.seconds * 1e6)}</td>
                  <td>{clean(row.ended)}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      <p class="caption">Step times are medians without the first step.</p>
    </Section>
  );
}

function Takeaway({ mean }: { mean: number }) {
  const { run } = usePage();
  const { ranks, verdicts, world_size: world } = run.meta;
  const verdict = verdicts.find((one) => one.kind === 'rank_imbalance');
  return (
    <>
      {verdict ? capital(clean(verdict.verdict)) : `The mean of the peaks is ${human(mean)}`}.
      {world > ranks.length && ` ${fix(world - ranks.length)} more ranks were not given.`}
    </>
  );
}
