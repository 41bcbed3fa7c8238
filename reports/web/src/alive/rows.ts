// SPDX-License-Identifier: Apache-2.0
// What was alive at a mark, as rows. Their sum is the mark's bytes: what the recording does not
// list one by one stands in a row of its own.
import type { MarkView, StepView } from '../data/types';
import type { RoleWord } from '../data/layout';

export interface Row {
  role: number;
  module: string;
  op: string;
  dtype: string;
  shape: string;
  name: string;
  source: string;
  phase: number; // it was made in; -1: not known
  saved: boolean;
  ageUs: number; // -1: not known
  count: number;
  bytes: number;
}

export const REST = 'not listed one by one';

const blank: Row = {
  role: 0,
  module: '',
  op: '',
  dtype: '',
  shape: '',
  name: '',
  source: '',
  phase: -1,
  saved: false,
  ageUs: -1,
  count: 0,
  bytes: 0,
};

/** The difference between what is wanted of each key and what the rows hold. */
function rest<K>(wanted: Map<K, number>, held: Map<K, number>): [K, number][] {
  const keys = new Set([...wanted.keys(), ...held.keys()]);
  return [...keys]
    .map((key): [K, number] => [key, (wanted.get(key) ?? 0) - (held.get(key) ?? 0)])
    .filter(([, bytes]) => bytes !== 0);
}
function sums<T, K>(items: T[], key: (item: T) => K, bytes: (item: T) => number): Map<K, number> {
  const out = new Map<K, number>();
  for (const item of items) out.set(key(item), (out.get(key(item)) ?? 0) + bytes(item));
  return out;
}

export function rowsAt(step: StepView, mark: MarkView): Row[] {
  const fromBlocks = mark.kind === 'peak' && step.blocks.length > 0;
  const rows: Row[] = fromBlocks
    ? step.blocks.map((block) => ({ ...block }))
    : mark.cells.map((cell) => ({ ...blank, ...cell, count: cell.blocks }));
  if (fromBlocks && mark.cells.length > 0) {
    const key = (item: { role: number; module: string }) => `${item.role} ${item.module}`;
    const bytes = (item: { bytes: number }) => item.bytes;
    for (const [place, missing] of rest(sums(mark.cells, key, bytes), sums(rows, key, bytes))) {
      const role = parseInt(place);
      const module = place.slice(String(role).length + 1);
      rows.push({ ...blank, role, module, name: REST, bytes: missing });
    }
  }
  const wanted = new Map(mark.roles.map((bytes, role) => [role, bytes]));
  const held = sums(
    rows,
    (row) => row.role,
    (row) => row.bytes,
  );
  for (const [role, missing] of rest(wanted, held)) {
    // A role without any row has none by nature: what the allocator adds, what it keeps in reserve.
    rows.push({ ...blank, role, name: held.has(role) ? REST : '', bytes: missing });
  }
  return rows.sort((a, b) => b.bytes - a.bytes);
}

/** One row for each role, module, operator and dtype. */
export function grouped(rows: Row[]): Row[] {
  const groups = new Map<string, Row>();
  for (const row of rows) {
    const name = row.name === REST ? REST : '';
    const key = [row.role, row.module, row.op, row.dtype, name].join('\u0000');
    const group = groups.get(key);
    if (!group) {
      groups.set(key, { ...row, name });
      continue;
    }
    group.count += row.count;
    group.bytes += row.bytes;
    if (group.shape !== row.shape) group.shape = 'various';
  }
  return [...groups.values()];
}

export const total = (rows: Row[]) => rows.reduce((sum, row) => sum + row.bytes, 0);

/** "h.3.mlp.c_fc" -> "h.3": a module with the layers below it. */
export function layerOf(module: string): string {
  const found = /^(after )?(?:[^.]*\.)*?\d+(?=\.|$)/.exec(module);
  return found ? found[0] : module;
}

export interface Filter {
  words: string;
  role: number; // -1: all
  module: string | null; // exactly this module, or all below this layer
  op: string | null;
}
export const everything: Filter = { words: '', role: -1, module: null, op: null };

export function matching(rows: Row[], filter: Filter, roles: RoleWord[]): Row[] {
  const words = filter.words.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => {
    if (filter.role >= 0 && row.role !== filter.role) return false;
    const { module } = filter;
    if (module !== null && row.module !== module && layerOf(row.module) !== module) return false;
    if (filter.op !== null && row.op !== filter.op) return false;
    if (words.length === 0) return true;
    const text = [row.module, row.name, row.op, row.dtype, row.shape, row.source];
    text.push(roles[row.role].title, roles[row.role].key, heldBy(row, roles));
    const all = text.join(' ').toLowerCase();
    return words.every((word) => all.includes(word));
  });
}

/** Who keeps the block alive, by the evidence that gave it its role. */
export function heldBy(row: Row, roles: RoleWord[]): string {
  const holder = holders[roles[row.role].key] ?? '';
  return row.saved && holder !== AUTOGRAD ? `${holder}, ${AUTOGRAD}`.replace(/^, /, '') : holder;
}
const AUTOGRAD = 'autograd';
const holders: Record<string, string> = {
  parameter: 'the model',
  buffer: 'the model',
  optimizer_state: 'the optimizer',
  gradient: 'a .grad',
  activation: AUTOGRAD,
  recomputed_activation: AUTOGRAD,
  input: 'the program',
  held_output: 'the program',
  temporary_forward: 'the work under way',
  temporary_backward: 'the work under way',
  temporary_optimizer: 'the work under way',
  workspace: 'a library',
  communication: 'collectives',
  external: 'made before the recording',
  unattributed: 'not known',
};
