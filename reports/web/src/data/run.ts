// SPDX-License-Identifier: Apache-2.0
// The run as the sections read it. A step is put together when it is first asked for.
import { Pyramid } from '../pyramid';
import type { Column, Columns } from './columns';
import type { Meta } from './layout';
import type {
  Block,
  Caching,
  Cell,
  Flops,
  MarkView,
  OperatorRow,
  Series,
  Span,
  StepView,
  Timeline,
} from './types';

/** Rows of a table by their step: where each step's rows stand in `rows`. */
class ByStep {
  private readonly begins: Uint32Array;
  private readonly rows: Uint32Array;
  constructor(step: Column, steps: number) {
    this.begins = new Uint32Array(steps + 1);
    for (let i = 0; i < step.length; i++) this.begins[step[i] + 1]++;
    for (let i = 0; i < steps; i++) this.begins[i + 1] += this.begins[i];
    const next = this.begins.slice();
    this.rows = new Uint32Array(step.length);
    for (let i = 0; i < step.length; i++) this.rows[next[step[i]]++] = i;
  }
  of(step: number): Uint32Array {
    return this.rows.subarray(this.begins[step], this.begins[step + 1]);
  }
}

export class Run {
  readonly steps: number;
  private readonly index = new Map<string, ByStep>();
  private readonly views = new Map<string, StepView>();
  private types: Map<string, string> | undefined;
  private readonly allSeries = new Map<string, Series>();
  private readonly timelineBegins: Uint32Array; // first point of each timeline
  private readonly changeBegins: Uint32Array; // first change of each point
  private readonly cellBegins: Uint32Array; // first cell of each mark
  private readonly formatBegins: Uint32Array; // first format of each operator
  private readonly cachingRows = new Map<number, number>(); // of a mark

  constructor(
    readonly meta: Meta,
    private readonly columns: Columns,
  ) {
    this.steps = columns.get('step.index').length;
    this.timelineBegins = begins(columns.get('timeline.points'));
    this.changeBegins = begins(columns.get('point.changes'));
    const marks = columns.get('mark.step').length;
    const cellMark = columns.get('cell.mark');
    const counts = new Uint32Array(marks);
    for (let i = 0; i < cellMark.length; i++) counts[cellMark[i]]++;
    this.cellBegins = begins(counts);
    const ofOperator = new Uint32Array(columns.get('operator.step').length);
    const formatOperator = columns.get('format.operator');
    for (let i = 0; i < formatOperator.length; i++) ofOperator[formatOperator[i]]++;
    this.formatBegins = begins(ofOperator);
    const cachingMark = columns.get('caching.mark');
    for (let i = 0; i < cachingMark.length; i++) this.cachingRows.set(cachingMark[i], i);
  }

  text(id: number): string {
    return this.meta.strings[id] ?? '';
  }
  /** "torch::nn::LinearImpl" -> "Linear"; "" when the module was not watched. */
  moduleType(name: string): string {
    this.types ??= new Map(this.meta.modules);
    return (this.types.get(name) ?? '').replace(/^torch::nn::/, '').replace(/Impl$/, '');
  }
  stepIndex(position: number): number {
    return this.columns.get('step.index')[position];
  }
  stepUs(position: number): number {
    return this.columns.get('step.us')[position];
  }
  /** The position of the program's step; of the nearest when it was not recorded. */
  positionOf(stepIndex: number): number {
    const index = this.columns.get('step.index');
    let best = 0;
    for (let i = 0; i < index.length; i++) {
      if (Math.abs(index[i] - stepIndex) < Math.abs(index[best] - stepIndex)) best = i;
    }
    return best;
  }
  /** Positions of the steps whose timeline, blocks and operators are in this file. */
  stepsInDetail(): number[] {
    const flag = this.columns.get('step.in_detail');
    return Array.from({ length: this.steps }, (_, i) => i).filter((i) => flag[i]);
  }
  /** The devices of a step, the one with the highest peak first. */
  devicesOf(position: number): string[] {
    const device = this.columns.get('device.device');
    const names = [...this.rows('device', position)].map((row) => this.text(device[row]));
    const peak = (name: string) => this.step(position, name).peak?.bytes ?? 0;
    return names.sort((a, b) => peak(b) - peak(a));
  }

  step(position: number, device: string): StepView {
    const key = `${position} ${device}`;
    let view = this.views.get(key);
    if (!view) {
      view = this.build(position, device);
      this.views.set(key, view);
    }
    return view;
  }

  /** All steps at one kind of mark; a step without it counts 0. */
  series(device: string, kind: string): Series {
    const key = `${kind} ${device}`;
    let series = this.allSeries.get(key);
    if (!series) {
      series = this.buildSeries(device, kind);
      this.allSeries.set(key, series);
    }
    return series;
  }

  private buildSeries(device: string, kind: string): Series {
    const wantedKind = this.meta.marks.findIndex((mark) => mark.key === kind);
    const wantedDevice = this.meta.strings.indexOf(device);
    const kinds = this.columns.get('mark.kind');
    const devices = this.columns.get('mark.device');
    const step = this.columns.get('mark.step');
    const rows: number[] = [];
    for (let row = 0; row < kinds.length; row++) {
      if (kinds[row] === wantedKind && devices[row] === wantedDevice) rows.push(row);
    }
    const spread = (column: Column | undefined) => {
      const values = new Float64Array(this.steps);
      if (column) for (const row of rows) values[step[row]] = column[row];
      return values;
    };
    const roles = this.meta.roles.map((_, role) => spread(this.columns.find(`mark.role${role}`)));
    const total = spread(this.columns.get('mark.bytes'));
    return { roles, total, pyramid: new Pyramid(total) };
  }

  private rows(table: string, position: number): Uint32Array {
    let byStep = this.index.get(table);
    if (!byStep) {
      byStep = new ByStep(this.columns.get(`${table}.step`), this.steps);
      this.index.set(table, byStep);
    }
    return byStep.of(position);
  }

  /** Reads rows of a table by column name. */
  private reader(table: string): (column: string, row: number) => number {
    return (column, row) => this.columns.get(`${table}.${column}`)[row];
  }

  private build(position: number, device: string): StepView {
    const id = this.meta.strings.indexOf(device);
    const onDevice = (table: string) => {
      const column = this.columns.get(`${table}.device`);
      return [...this.rows(table, position)].filter((row) => column[row] === id);
    };
    const step = this.reader('step');
    const books = this.reader('device');
    const [booksRow] = onDevice('device');
    const ofBooks = (column: string) => (booksRow === undefined ? 0 : books(column, booksRow));
    const marks = onDevice('mark')
      .map((row) => this.mark(row))
      .sort((a, b) => a.us - b.us || rank(a) - rank(b));
    const [timelineRow] = onDevice('timeline');
    return {
      position,
      index: step('index', position),
      us: step('us', position),
      microSteps: step('micro_steps', position),
      tokens: step('tokens', position),
      inDetail: step('in_detail', position) === 1,
      device,
      marks,
      peak: marks.find((mark) => mark.kind === 'peak') ?? null,
      timeline: timelineRow === undefined ? null : this.timeline(timelineRow),
      spans: [...this.rows('span', position)].map((row) => this.span(row)),
      blocks: onDevice('block').map((row) => this.block(row)),
      operators: [...this.rows('operator', position)].map((row) => this.operator(row)),
      flops: this.flops(position),
      allocations: ofBooks('allocations'),
      frees: ofBooks('frees'),
      largestDifference: ofBooks('largest_difference'),
      foreign: ofBooks('foreign'),
    };
  }

  private flops(position: number): Flops {
    const step = this.reader('step');
    const flops = {
      forward: step('forward', position),
      backward: step('backward', position),
      recompute: step('recompute', position),
      optimizer: step('optimizer', position),
      elementwise: step('elementwise', position),
      torch: step('torch', position),
    };
    const total = flops.forward + flops.backward + flops.recompute + flops.optimizer;
    return { ...flops, total };
  }

  private mark(row: number): MarkView {
    const mark = this.reader('mark');
    const cell = this.reader('cell');
    const word = this.meta.marks[mark('kind', row)];
    const cells: Cell[] = [];
    for (let i = this.cellBegins[row]; i < this.cellBegins[row + 1]; i++) {
      cells.push({
        role: cell('role', i),
        module: this.text(cell('module', i)),
        bytes: cell('bytes', i),
        blocks: cell('blocks', i),
      });
    }
    const expected = mark('expected_saved', row);
    return {
      kind: word.key,
      title: word.title,
      microStep: mark('micro_step', row),
      us: mark('us', row),
      bytes: mark('bytes', row),
      allocator: mark('allocator', row),
      difference: mark('difference', row),
      saved: mark('saved', row),
      savedParameters: mark('saved_parameters', row),
      savedNumbers: mark('saved_numbers', row),
      expectedSaved: expected < 0 ? null : expected,
      phase: mark('phase', row),
      module: this.text(mark('module', row)),
      op: this.text(mark('op', row)),
      roles: this.meta.roles.map((_, role) => this.columns.find(`mark.role${role}`)?.[row] ?? 0),
      cells,
      wanted: mark('wanted', row),
      limit: mark('limit', row),
      caching: this.caching(this.cachingRows.get(row)),
    };
  }

  private caching(row: number | undefined): Caching | null {
    if (row === undefined) return null;
    const caching = this.reader('caching');
    const known = (column: string) => {
      const bytes = caching(column, row);
      return bytes < 0 ? null : bytes;
    };
    return {
      reserved: caching('reserved', row),
      active: caching('active', row),
      allocated: caching('allocated', row),
      largestFree: caching('largest_free', row),
      allocatorReserved: known('allocator_reserved'),
      allocatorActive: known('allocator_active'),
      allocatorAllocated: known('allocator_allocated'),
      outside: known('outside'),
      exact: caching('exact', row) === 1,
    };
  }

  private span(row: number): Span {
    const span = this.reader('span');
    return {
      phase: span('phase', row),
      microStep: span('micro_step', row),
      begin: span('begin', row),
      end: span('end', row),
    };
  }

  private operator(row: number): OperatorRow {
    const operator = this.reader('operator');
    return {
      phase: operator('phase', row),
      module: this.text(operator('module', row)),
      op: this.text(operator('op', row)),
      calls: operator('calls', row),
      flops: operator('flops', row),
      torch: operator('torch', row),
      elementwise: operator('elementwise', row),
      ns: operator('ns', row),
      executed: {
        tensor: operator('tensor', row),
        scalar: operator('scalar', row),
        ns: operator('device_ns', row),
        dram: operator('dram', row),
        formats: this.formats(row),
      },
    };
  }

  /** FLOPs that an operator executed, of each number format. */
  private formats(row: number): number[] {
    const format = this.columns.get('format.format');
    const flops = this.columns.get('format.flops');
    const out = this.meta.formats.map(() => 0);
    for (let i = this.formatBegins[row]; i < this.formatBegins[row + 1]; i++) {
      out[format[i]] += flops[i];
    }
    return out;
  }

  private block(row: number): Block {
    const block = this.reader('block');
    const count = block('count', row);
    return {
      bytes: block('bytes', row) * count,
      count,
      role: block('role', row),
      saved: block('saved', row) === 1,
      phase: block('phase', row),
      module: this.text(block('module', row)),
      op: this.text(block('op', row)),
      name: this.text(block('name', row)),
      dtype: this.text(block('dtype', row)),
      shape: this.text(block('shape', row)),
      source: this.text(block('source', row)),
      ageUs: block('age_us', row),
    };
  }

  private timeline(row: number): Timeline {
    const begin = this.timelineBegins[row];
    const length = this.timelineBegins[row + 1] - begin;
    const part = (name: string) => {
      const column = this.columns.get(`point.${name}`);
      return Array.prototype.slice.call(column, begin, begin + length) as number[];
    };
    const times = new Float64Array(length);
    const total = new Float64Array(length);
    const roles = this.meta.roles.map(() => new Float64Array(length));
    const now = this.meta.roles.map(() => 0);
    const changeRole = this.columns.get('change.role');
    const changeBytes = this.columns.get('change.bytes');
    const us = part('us');
    let sum = 0;
    for (let i = 0; i < length; i++) {
      times[i] = (i > 0 ? times[i - 1] : 0) + us[i];
      const point = begin + i;
      for (let c = this.changeBegins[point]; c < this.changeBegins[point + 1]; c++) {
        now[changeRole[c]] += changeBytes[c];
        sum += changeBytes[c];
      }
      for (let role = 0; role < now.length; role++) roles[role][i] = now[role];
      total[i] = sum;
    }
    const pyramid = new Pyramid(total);
    const reserved = part('reserved');
    const reserve = reserved.some(Boolean)
      ? { reserved, active: part('active'), largestFree: part('largest_free') }
      : null;
    return {
      length,
      times,
      roles,
      total,
      phase: part('phase'),
      microStep: part('micro_step'),
      module: part('module'),
      op: part('op'),
      reserve,
      pyramid,
      highest: pyramid.argmax(0, length),
    };
  }
}

/** Marks at the same microsecond, in the order in which they are set. */
const order = ['start', 'forward_edge', 'peak', 'oom', 'backward_end', 'end'];
const rank = (mark: MarkView) => order.indexOf(mark.kind);

function begins(counts: Column): Uint32Array {
  const out = new Uint32Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) out[i + 1] = out[i] + counts[i];
  return out;
}
