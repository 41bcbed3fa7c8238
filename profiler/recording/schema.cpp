// SPDX-License-Identifier: Apache-2.0
#include "profiler/recording/schema.h"

#include "profiler/core/words.h"
#include "profiler/recording/format.h"

namespace tally::recording {
namespace {

constexpr const char* kTables = R"sql(
CREATE TABLE run(
  run INTEGER PRIMARY KEY CHECK (run = 0),
  started TEXT NOT NULL,          -- ISO 8601, UTC
  ended TEXT NOT NULL,            -- 'running', 'clean', 'exception'
  pid INTEGER NOT NULL,
  pid_start INTEGER NOT NULL,     -- /proc/<pid>/stat, field 22: clock ticks since boot
  pid_namespace TEXT NOT NULL,    -- /proc/self/ns/pid
  boot_id TEXT NOT NULL,          -- /proc/sys/kernel/random/boot_id
  overhead_seconds REAL NOT NULL DEFAULT 0,
  bookkeeper_seconds REAL NOT NULL DEFAULT 0,
  overhead_bytes INTEGER NOT NULL DEFAULT 0,
  dropped_events INTEGER NOT NULL DEFAULT 0,
  start_unix_ns INTEGER,          -- the clock of 'started', exactly; since version 2, as the rest
  rank INTEGER,                   -- of this process in a distributed run; NULL: it is alone
  world_size INTEGER,
  model TEXT NOT NULL DEFAULT '');  -- the model's configuration: a preset's name or config.json
CREATE TABLE command(position INTEGER PRIMARY KEY, argument TEXT NOT NULL);
CREATE TABLE version(position INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL);
CREATE TABLE option(position INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL);
CREATE TABLE device(
  device INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, memory_bytes INTEGER NOT NULL);
CREATE TABLE source(
  position INTEGER PRIMARY KEY, name TEXT NOT NULL, available INTEGER NOT NULL,
  reason TEXT NOT NULL);
CREATE TABLE note(position INTEGER PRIMARY KEY, text TEXT NOT NULL);

CREATE TABLE string(string INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE role(role INTEGER PRIMARY KEY, key TEXT NOT NULL, title TEXT NOT NULL);

CREATE TABLE module(position INTEGER PRIMARY KEY, name INTEGER NOT NULL, type INTEGER NOT NULL);
CREATE TABLE parameter(
  position INTEGER PRIMARY KEY,
  name INTEGER NOT NULL, module INTEGER NOT NULL, dtype INTEGER NOT NULL, shape INTEGER NOT NULL,
  elements INTEGER NOT NULL, bytes INTEGER NOT NULL,
  trainable INTEGER NOT NULL, is_buffer INTEGER NOT NULL,
  shared INTEGER NOT NULL,        -- 1: its storage stands under an earlier name as well
  optimizer INTEGER);             -- position in the table optimizer
CREATE TABLE optimizer(
  position INTEGER PRIMARY KEY, type INTEGER NOT NULL, recipe INTEGER NOT NULL,
  parameters INTEGER NOT NULL);

CREATE TABLE blob(blob INTEGER PRIMARY KEY, data BLOB NOT NULL);

CREATE TABLE step(
  step INTEGER PRIMARY KEY,
  start_ns INTEGER NOT NULL,      -- since the run began
  duration_ns INTEGER NOT NULL,
  micro_steps INTEGER NOT NULL,
  detailed INTEGER NOT NULL,
  tokens REAL NOT NULL,
  events INTEGER NOT NULL,
  unmatched_frees INTEGER NOT NULL,
  profiler_ns INTEGER NOT NULL,
  operators INTEGER NOT NULL,     -- blob: everything but the time
  operator_times BLOB NOT NULL);
CREATE TABLE step_device(
  step INTEGER NOT NULL, device INTEGER NOT NULL,
  forward_temporary_peak INTEGER NOT NULL,
  backward_temporary_peak INTEGER NOT NULL,
  optimizer_temporary_peak INTEGER NOT NULL,
  foreign_bytes INTEGER NOT NULL,
  adopted_bytes INTEGER NOT NULL,
  largest_difference INTEGER NOT NULL,
  allocations INTEGER NOT NULL, frees INTEGER NOT NULL,
  timeline INTEGER NOT NULL,      -- blob: everything but the time
  timeline_times BLOB NOT NULL,
  peak_blocks INTEGER,            -- blob; only of detailed steps
  PRIMARY KEY(step, device)) WITHOUT ROWID;
CREATE TABLE phase(
  step INTEGER NOT NULL, position INTEGER NOT NULL,
  name TEXT NOT NULL, micro_step INTEGER NOT NULL,
  begin_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
  PRIMARY KEY(step, position)) WITHOUT ROWID;
CREATE TABLE work(
  step INTEGER NOT NULL, phase TEXT NOT NULL,
  calls INTEGER NOT NULL,
  flops REAL NOT NULL, torch_flops REAL NOT NULL, elementwise_flops REAL NOT NULL,
  nanoseconds INTEGER NOT NULL,
  PRIMARY KEY(step, phase)) WITHOUT ROWID;
CREATE TABLE kernel(                -- of steps that named them; since version 4
  step INTEGER NOT NULL, position INTEGER NOT NULL,
  phase TEXT NOT NULL, module INTEGER NOT NULL, operator INTEGER NOT NULL,
  name INTEGER NOT NULL,
  calls INTEGER NOT NULL, device_ns REAL NOT NULL,
  tensor_flops REAL NOT NULL, scalar_flops REAL NOT NULL, dram_bytes REAL NOT NULL,
  PRIMARY KEY(step, position)) WITHOUT ROWID;
CREATE TABLE executed_flops(        -- by hardware counters, of a phase; since version 5
  step INTEGER NOT NULL, phase TEXT NOT NULL,
  format TEXT NOT NULL,           -- 'tensor_bf16'
  flops REAL NOT NULL,
  PRIMARY KEY(step, phase, format)) WITHOUT ROWID;
CREATE TABLE kernel_flops(          -- of a row of kernel; since version 5
  step INTEGER NOT NULL, position INTEGER NOT NULL,
  format TEXT NOT NULL, flops REAL NOT NULL,
  PRIMARY KEY(step, position, format)) WITHOUT ROWID;
CREATE TABLE region(                -- checkpointed; this and unit: since version 2, of detailed steps
  step INTEGER NOT NULL, position INTEGER NOT NULL,
  micro_step INTEGER NOT NULL,
  module INTEGER NOT NULL, node INTEGER NOT NULL,
  kept_bytes INTEGER NOT NULL, avoided_bytes INTEGER NOT NULL,
  flops REAL NOT NULL, nanoseconds INTEGER NOT NULL,
  begin_bytes INTEGER NOT NULL, peak_bytes INTEGER NOT NULL,
  PRIMARY KEY(step, position)) WITHOUT ROWID;
CREATE TABLE unit(                  -- a repeated block of the model
  step INTEGER NOT NULL, position INTEGER NOT NULL,
  micro_step INTEGER NOT NULL,
  name INTEGER NOT NULL,
  activation_bytes INTEGER NOT NULL, output_bytes INTEGER NOT NULL,
  forward_end_ns INTEGER NOT NULL, backward_begin_ns INTEGER NOT NULL,
  backward_end_ns INTEGER NOT NULL,
  PRIMARY KEY(step, position)) WITHOUT ROWID;

CREATE TABLE mark(
  mark INTEGER PRIMARY KEY,       -- in the order of time within a step and device
  step INTEGER NOT NULL, device INTEGER NOT NULL,
  name TEXT NOT NULL,             -- 'start', 'forward_edge', 'backward_end', 'peak', 'end', 'oom'
  micro_step INTEGER NOT NULL,
  time_ns INTEGER NOT NULL,       -- since the step began
  bytes INTEGER NOT NULL,         -- the ledger's
  allocator_bytes INTEGER NOT NULL,
  difference INTEGER NOT NULL,    -- bytes - allocator_bytes
  saved_bytes INTEGER NOT NULL,
  saved_parameter_bytes INTEGER NOT NULL,
  saved_number_bytes INTEGER NOT NULL,
  expected_saved_bytes INTEGER,   -- NULL: not computed
  phase TEXT NOT NULL,
  module INTEGER NOT NULL, operator INTEGER NOT NULL,
  wanted_bytes INTEGER NOT NULL DEFAULT 0,  -- these two since version 3: of the allocation that
  limit_bytes INTEGER NOT NULL DEFAULT 0,   -- failed and the memory that there is
  source INTEGER NOT NULL DEFAULT 0);  -- since version 4: the line that made it; of 'peak' and 'oom'
CREATE TABLE mark_caching(        -- since version 3: of devices with a caching allocator
  mark INTEGER PRIMARY KEY,
  reserved_bytes INTEGER NOT NULL,  -- these three by replay of the allocator's events
  active_bytes INTEGER NOT NULL,
  allocated_bytes INTEGER NOT NULL,
  largest_free_bytes INTEGER NOT NULL,
  allocator_reserved_bytes INTEGER,   -- the allocator's own; NULL: not asked at this very moment
  allocator_active_bytes INTEGER,
  allocator_allocated_bytes INTEGER,
  outside_bytes INTEGER,          -- NULL: not known
  is_exact INTEGER NOT NULL);
CREATE TABLE mark_role(
  mark INTEGER NOT NULL, role INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  cells INTEGER,                  -- blob: the same bytes by module
  PRIMARY KEY(mark, role)) WITHOUT ROWID;

CREATE VIEW book AS
  SELECT mark.mark, mark.step, device.id AS device, mark.name, mark.micro_step,
         role.key AS role, mark_role.bytes
  FROM mark JOIN mark_role ON mark_role.mark = mark.mark
            JOIN role ON role.role = mark_role.role
            JOIN device ON device.device = mark.device;
)sql";

}  // namespace

void create_schema(Database& database) {
  // Small pages: a step appends a few KiB, and what a page cannot fill is lost.
  database.execute("PRAGMA page_size=1024");
  database.execute(fmt::format("BEGIN; PRAGMA application_id={}; PRAGMA user_version={};{}",
                               kApplicationId, kSchemaVersion, kTables));
  Statement role(database, "INSERT INTO role VALUES(?1, ?2, ?3)");
  for (size_t i = 0; i < kRoleCount; ++i) role.run(i, kRoleWords[i].key, kRoleWords[i].title);
  database.execute("COMMIT");
}

}  // namespace tally::recording
