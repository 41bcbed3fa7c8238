// SPDX-License-Identifier: Apache-2.0
// The treemap's layout: role, then module, then operator where one module holds very much.
import { hierarchy, treemap, treemapSquarify, type HierarchyRectangularNode } from 'd3-hierarchy';
import { layerOf, total, type Row } from './rows';

export interface Leaf {
  role: number;
  module: string;
  op: string | null;
  smaller: number; // how many small ones this stands for; 0: none
  bytes: number;
}
interface Node {
  role: number;
  leaf?: Leaf;
  children?: Node[];
}
export type Tile = HierarchyRectangularNode<Node>;

const SPLIT = 0.06; // of all: a module is split by operator
const SMALL = 0.0006; // of all: modules are put together
const MANY = 24; // modules of a role: layers are folded

function leavesOf(role: number, rows: Row[], all: number): Leaf[] {
  const fold = new Set(rows.map((row) => row.module)).size > MANY;
  const modules = new Map<string, Row[]>();
  for (const row of rows) {
    const key = fold ? layerOf(row.module) : row.module;
    const of = modules.get(key);
    if (of) of.push(row);
    else modules.set(key, [row]);
  }
  const leaves: Leaf[] = [];
  const rest: Leaf = { role, module: '', op: null, smaller: 0, bytes: 0 };
  for (const [module, of] of modules) {
    const bytes = total(of);
    const ops = new Set(of.map((row) => row.op));
    if (bytes < all * SMALL) {
      rest.bytes += bytes;
      rest.smaller++;
    } else if (bytes > all * SPLIT && ops.size > 1) {
      for (const op of ops) {
        const part = total(of.filter((row) => row.op === op));
        leaves.push({ role, module, op, smaller: 0, bytes: part });
      }
    } else {
      leaves.push({ role, module, op: null, smaller: 0, bytes });
    }
  }
  if (rest.smaller > 0) leaves.push(rest);
  return leaves.filter((leaf) => leaf.bytes > 0);
}

export const hasTitle = (tile: { x0: number; x1: number; y0: number; y1: number }) =>
  tile.x1 - tile.x0 > 60 && tile.y1 - tile.y0 > 44;

export function tiles(rows: Row[], width: number, height: number): Tile[] {
  const all = total(rows);
  const roles = [...new Set(rows.map((row) => row.role))];
  const children = roles.map((role): Node => {
    const leaves = leavesOf(
      role,
      rows.filter((row) => row.role === role),
      all,
    );
    return { role, children: leaves.map((leaf) => ({ role, leaf })) };
  });
  const root = hierarchy<Node>({ role: -1, children: children.filter((c) => c.children!.length) })
    .sum((node) => node.leaf?.bytes ?? 0)
    .sort((a, b) => b.value! - a.value!);
  treemap<Node>()
    .tile(treemapSquarify.ratio(1.3))
    .size([width, height])
    .paddingInner((node) => (node.depth === 0 ? 3 : 1))
    .paddingTop((node) => (node.depth === 1 && hasTitle(node as Tile) ? 22 : 0))
    .round(true)(root);
  return (root as Tile).children ?? [];
}
