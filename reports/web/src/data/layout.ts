// SPDX-License-Identifier: Apache-2.0
// What reports/page_data.cpp writes: the other place that knows the layout. Change both, and the
// version in both.

export const VERSION = 4;

export interface Word {
  key: string;
  title: string;
  meaning: string;
}
export interface RoleWord extends Word {
  light: string;
  dark: string;
}
export interface TheoryRow {
  key: string;
  title: string;
  unit: string;
  measured: number;
  expected: number | null;
  deviation: number;
  formula: string;
  cause: string;
  closed_form: number | null;
  closed_form_cause: string;
}
export interface Remedy {
  text: string;
  bytes: number;
  cost: string;
}
export interface Rank {
  rank: number;
  recording: string;
  ended: string;
  steps: number;
  device: string;
  peak: number;
  peak_step: number;
  roles: number[];
  seconds: number;
}
/** Why tensor cores executed more or less than the model's FLOPs by formula. */
export interface ExecutedDifference {
  model: number;
  executed: number;
  causes: {
    title: string;
    flops: number;
    proved: boolean;
    why: string;
    operators: [name: string, flops: number][];
  }[];
}
/** An operator's work over the bytes that it moved, all its calls in the step. */
export interface RooflinePoint {
  op: string;
  flops: number;
  bytes: number;
  seconds: number;
}
export interface Utilization {
  device: string;
  arithmetic: string;
  peak: number | null;
  bytes_per_second: number | null;
  mfu: number | null;
  hfu: number | null;
  cause: string;
  executed_difference: ExecutedDifference | null;
  roofline: RooflinePoint[];
  roofline_cause: string;
}
/** Kernels of one name, of all operators that launched them. */
export interface KernelRow {
  name: string;
  ops: string;
  calls: number;
  executed: { tensor: number; scalar: number; ns: number; dram: number; formats: number[] };
}
export interface Verdict {
  kind: string;
  tone: 'good' | 'bad' | 'open';
  verdict: string;
  evidence: string[];
  bytes: number;
  remedies: Remedy[];
}
/** Another setting of the step shown, and the peak that it would have. */
export interface TradeOff {
  parts: number;
  accumulated: boolean;
  checkpointing: string;
  peak: number;
  extra_flops: number;
  recorded: boolean;
}
export interface Device {
  id: string;
  name: string;
  memory_bytes: number;
}
export interface Source {
  name: string;
  available: boolean;
  reason: string;
}
export type ColumnType = 'u8' | 'u16' | 'u32' | 'i32' | 'f64';
export type ColumnEntry = [name: string, type: ColumnType, offset: number, length: number];

export interface Meta {
  version: number;
  columns: ColumnEntry[];
  roles: RoleWord[];
  phases: Word[];
  marks: Word[];
  formats: Word[]; // of executed FLOPs
  strings: string[];
  headline: string;
  recording: string;
  started: string;
  ended: string;
  command: string[];
  versions: [string, string][];
  options: [string, string][];
  overhead: { seconds: number; bookkeeper_seconds: number; bytes: number; share: number };
  devices: Device[];
  sources: Source[];
  parameters: { count: number; bytes: number; trainable: number };
  optimizers: string[];
  modules: [name: string, type: string][];
  shown: number;
  device: string;
  at: { kind: string; micro_step: number };
  rank: number;
  world_size: number;
  ranks: Rank[];
  utilization: Utilization;
  kernels: { step: number; rows: KernelRow[] };
  marks_left_out: boolean;
  theory: TheoryRow[];
  closed_form_of: string;
  verdicts: Verdict[];
  trade_off: TradeOff[];
  dropped_events: number;
  unattributed_bytes: number;
  notes: string[];
}
