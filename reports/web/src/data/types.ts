// SPDX-License-Identifier: Apache-2.0
// One step of the run, as the sections read it. Times are microseconds, sizes bytes.
import type { Pyramid } from '../pyramid';
import type { Column } from './columns';

export interface Cell {
  role: number;
  module: string;
  bytes: number;
  blocks: number;
}
export interface MarkView {
  kind: string;
  title: string;
  microStep: number;
  us: number;
  bytes: number;
  allocator: number;
  difference: number;
  saved: number;
  savedParameters: number;
  savedNumbers: number;
  expectedSaved: number | null;
  phase: number;
  module: string;
  op: string;
  roles: number[];
  cells: Cell[];
}
export interface Block {
  bytes: number; // of all of them
  count: number;
  role: number;
  saved: boolean;
  phase: number;
  module: string;
  op: string;
  name: string;
  dtype: string;
  shape: string;
  source: string;
  ageUs: number;
}
export interface Span {
  phase: number;
  microStep: number;
  begin: number;
  end: number;
}
export interface OperatorRow {
  phase: number;
  module: string;
  op: string;
  calls: number;
  flops: number;
  torch: number;
  elementwise: number;
  ns: number;
}
export interface Timeline {
  length: number;
  times: Float64Array;
  roles: Float64Array[];
  total: Float64Array;
  phase: Column;
  microStep: Column;
  module: Column;
  op: Column;
  pyramid: Pyramid;
  highest: number; // index
}
export interface Flops {
  forward: number;
  backward: number;
  recompute: number;
  optimizer: number;
  elementwise: number;
  torch: number;
  total: number;
}
export interface StepView {
  position: number; // among the recorded steps
  index: number; // the program's
  us: number;
  microSteps: number;
  tokens: number;
  inDetail: boolean;
  device: string;
  marks: MarkView[]; // in the order of time
  peak: MarkView | null;
  timeline: Timeline | null;
  spans: Span[];
  blocks: Block[];
  operators: OperatorRow[];
  flops: Flops;
  allocations: number;
  frees: number;
  largestDifference: number;
  foreign: number;
}
/** Bytes by role at one kind of mark, a value a step. */
export interface Series {
  roles: Float64Array[];
  total: Float64Array;
  pyramid: Pyramid;
}
