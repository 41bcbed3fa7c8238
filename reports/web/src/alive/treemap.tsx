// SPDX-License-Identifier: Apache-2.0
// The treemap: real buttons, each of which filters the table below.
import { useMemo } from 'preact/hooks';
import type { Run } from '../data/run';
import { clean, human, percent, raw } from '../format';
import { inkOn, Swatch, useHatch, usePage, useWidth } from '../ui';
import { everything, total, type Filter, type Row } from './rows';
import { hasTitle, tiles, type Leaf, type Tile } from './tiles';

const box = (tile: Tile, height = tile.y1 - tile.y0) => ({
  left: tile.x0 + 'px',
  top: tile.y0 + 'px',
  width: tile.x1 - tile.x0 + 'px',
  height: height + 'px',
});

export interface TreemapProps {
  rows: Row[];
  filter: Filter;
  onFilter: (filter: Filter) => void;
  label: string;
}

export function Treemap({ rows, filter, onFilter, label }: TreemapProps) {
  const { run } = usePage();
  const [element, width] = useWidth<HTMLDivElement>();
  const height = width < 560 ? 460 : 380;
  const layout = useMemo(() => (width ? tiles(rows, width, height) : []), [rows, width, height]);
  const all = total(rows);
  return (
    <div ref={element}>
      <div class="treemap" style={{ height: height + 'px' }} role="group" aria-label={label}>
        {layout.map((tile) => {
          const { title } = run.meta.roles[tile.data.role];
          const wide = tile.x1 - tile.x0 > title.length * 7.2 + 132;
          return [
            hasTitle(tile) && (
              <div class="treemap-title" style={box(tile, 20)} key={`title ${title}`}>
                <Swatch role={tile.data.role} />
                <b>{title}</b>
                {wide && (
                  <span>
                    {human(tile.value!)}, {percent(tile.value! / all, 0)}
                  </span>
                )}
              </div>
            ),
            ...tile
              .leaves()
              .map((leaf, i) => (
                <LeafTile
                  key={`${title} ${i}`}
                  tile={leaf}
                  share={leaf.value! / all}
                  filter={filter}
                  onFilter={onFilter}
                />
              )),
          ];
        })}
      </div>
    </div>
  );
}

function moduleOf(leaf: Leaf, run: Run): string {
  if (leaf.smaller > 0) return `${leaf.smaller} smaller`;
  const type = /^\d+$/.test(leaf.module) ? ' ' + run.moduleType(leaf.module) : '';
  return clean(leaf.module + type) || 'no module';
}
const operatorOf = (leaf: Leaf) =>
  leaf.op === null ? '' : clean(leaf.op).replace('aten::', '') || 'no operator';

const GLYPH = 7.3; // pixels
const LINE = 16;

/** Drops leading parts until it fits: "h.0.mlp.c_fc", "…mlp.c_fc", "…c_fc"; a number says nothing. */
function shortened(name: string, room: number): string {
  let text = name;
  for (let rest = name; text.length > room; text = '…' + rest) {
    const dot = rest.indexOf('.');
    if (dot < 0) return '';
    rest = rest.slice(dot + 1);
  }
  return /^…\d*$/.test(text) ? '' : text;
}

/** The lines that a tile has room for: module, operator, bytes. Long ones are cut by an ellipsis. */
function linesOf(leaf: Leaf, module: string, width: number, height: number): string[] {
  if (height < LINE + 5) return [];
  const room = Math.floor((width - 12) / GLYPH);
  const count = Math.floor((height - 5) / LINE);
  const isWide = width >= 64;
  if (leaf.op !== null && (!isWide || count === 1)) {
    return isWide ? [`${module} ${operatorOf(leaf)}`] : []; // the module alone would mislead
  }
  const first = shortened(module, room) || (isWide && leaf.module !== '' ? module : '');
  if (first === '') return [];
  const lines = leaf.op === null ? [first] : [first, operatorOf(leaf)];
  if (width >= 74) lines.push(human(leaf.bytes));
  return lines.slice(0, count);
}

interface LeafProps extends Omit<TreemapProps, 'rows' | 'label'> {
  tile: Tile;
  share: number;
}
function LeafTile({ tile, share, filter, onFilter }: LeafProps) {
  const { run, theme } = usePage();
  const hatch = useHatch();
  const leaf = tile.data.leaf!;
  const width = tile.x1 - tile.x0;
  const height = tile.y1 - tile.y0;
  if (width < 2 || height < 2) return null;
  const role = run.meta.roles[leaf.role];
  const color = role[theme];
  const module = moduleOf(leaf, run);
  const name = [module, operatorOf(leaf)].filter(Boolean).join(' ');
  const lines = linesOf(leaf, module, width, height);
  const bytes = human(leaf.bytes);
  const wanted: Filter = {
    ...everything,
    role: leaf.role,
    module: leaf.smaller ? null : leaf.module,
    op: leaf.op,
  };
  const chosen =
    filter.role === wanted.role && filter.module === wanted.module && filter.op === wanted.op;
  return (
    <button
      class={'leaf' + (chosen ? ' chosen' : '') + hatch(leaf.role)}
      tabIndex={width * height > 1500 ? 0 : -1}
      aria-pressed={chosen}
      style={{ ...box(tile), background: color, color: inkOn(color), '--fill': color }}
      title={`${role.title} · ${name}\n${bytes} = ${raw(leaf.bytes)} · ${percent(share)}`}
      aria-label={`${lines.join(' ')}, ${name} ${bytes}, ${role.title}`}
      onClick={() => onFilter(chosen ? everything : wanted)}
    >
      {lines.length > 0 && (
        <span>
          {lines.map((text, i) => [
            i > 0 && ' ', // for those who hear it
            i > 0 && text === bytes ? <em key={i}>{text}</em> : <bdi key={i}>{text}</bdi>,
          ])}
        </span>
      )}
    </button>
  );
}
