// SPDX-License-Identifier: Apache-2.0
// The treemap: real buttons, each of which filters the table below.
import { useMemo } from 'preact/hooks';
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
          const wide = tile.x1 - tile.x0 > title.length * 7.2 + 100;
          return [
            hasTitle(tile) && (
              <div class="treemap-title" style={box(tile, 20)} key={`title ${title}`}>
                <Swatch role={tile.data.role} />
                <b>{title}</b>
                {wide && <span>{human(tile.value!)}</span>}
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

function nameOf(leaf: Leaf): string {
  if (leaf.smaller > 0) return `${leaf.smaller} smaller`;
  const module = clean(leaf.module) || 'no module';
  return leaf.op === null ? module : `${module} ${clean(leaf.op).replace('aten::', '') || '–'}`;
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
  const name = nameOf(leaf);
  const fits = width > name.length * 7.3 + 12 && height > 20;
  const both = fits && height > 38 && width > 74;
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
      title={`${role.title} · ${name}\n${human(leaf.bytes)} = ${raw(leaf.bytes)} · ${percent(share)}`}
      aria-label={`${name} ${human(leaf.bytes)}, ${role.title}`}
      onClick={() => onFilter(chosen ? everything : wanted)}
    >
      {fits && (
        <span>
          <bdi>{name}</bdi> {both && <em>{human(leaf.bytes)}</em>}
        </span>
      )}
    </button>
  );
}
