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
/** Beside the blocks of a caching allocator. What it says itself is null where it was not asked. */
export interface Caching {
  reserved: number;
  active: number;
  allocated: number;
  largestFree: number;
  allocatorReserved: number | null;
  allocatorActive: number | null;
  allocatorAllocated: number | null;
  outside: number | null;
  exact: boolean;
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
  wanted: number; // of an OOM: the allocation that failed or crossed the budget
  limit: number; // and the memory that there was
  caching: Caching | null;
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
  executed: Executed;
}
/** By hardware counters; 0 where a step did not count it. */
export interface Executed {
  tensor: number; // FLOPs
  scalar: number; // FLOPs
  ns: number; // of kernels
  dram: number; // bytes
  formats: number[]; // FLOPs by the number formats of Meta, all 0 where they are not known
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
  reserve: Reserve | null; // of a caching allocator
  pyramid: Pyramid;
  highest: number; // index
}
export interface Reserve {
  reserved: number[];
  active: number[];
  largestFree: number[];
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
