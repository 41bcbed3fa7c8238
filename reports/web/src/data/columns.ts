// SPDX-License-Identifier: Apache-2.0
// Columns out of the file: base64, gzip, typed arrays. reports/page_columns.cpp writes them.
import { gunzipSync } from 'fflate';
import { VERSION, type ColumnType, type Meta } from './layout';

export type Column = ArrayLike<number>;

const arrays: Record<ColumnType, new (b: ArrayBuffer, offset: number, length: number) => Column> = {
  u8: Uint8Array,
  u16: Uint16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f64: Float64Array,
};

export class Columns {
  private readonly columns = new Map<string, Column>();

  constructor(meta: Meta, buffer: ArrayBuffer) {
    for (const [name, type, offset, length] of meta.columns) {
      this.columns.set(name, new arrays[type](buffer, offset, length));
    }
  }
  get(name: string): Column {
    const column = this.columns.get(name);
    if (!column) throw new Error(`column ${name} is missing`);
    return column;
  }
  find(name: string): Column | undefined {
    return this.columns.get(name);
  }
}

/** A plain loop: Uint8Array.from with a callback takes ten times as long. */
function decodeBase64(text: string): Uint8Array<ArrayBuffer> {
  const native = Uint8Array as unknown as {
    fromBase64?: (text: string) => Uint8Array<ArrayBuffer>;
  };
  if (native.fromBase64) return native.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** By the browser itself where it can; older ones, and some that load from a file, cannot. */
export async function unpack(text: string): Promise<ArrayBuffer> {
  const packed = decodeBase64(text);
  if (typeof DecompressionStream === 'undefined') return gunzipSync(packed).buffer as ArrayBuffer;
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Response(stream).arrayBuffer();
}

export function parseMeta(text: string): Meta {
  const meta = JSON.parse(text) as Meta;
  if (meta.version !== VERSION) {
    throw new Error(`its data has layout ${meta.version}, this page reads layout ${VERSION}`);
  }
  return meta;
}

const textOf = (id: string) => {
  const element = document.getElementById(id);
  if (!element) throw new Error('it holds no data of a run');
  return element.textContent!.trim();
};

/** The run that the page opens with; or that of another rank, which stands beside it. */
export async function readDocument(rank?: number): Promise<{ meta: Meta; columns: Columns }> {
  const suffix = rank === undefined ? '' : `-${rank}`;
  const meta = parseMeta(textOf('tally-meta' + suffix));
  return { meta, columns: new Columns(meta, await unpack(textOf('tally-columns' + suffix))) };
}
/** A page of very many ranks has the data of some only. */
export const hasRank = (rank: number) => document.getElementById(`tally-meta-${rank}`) !== null;
