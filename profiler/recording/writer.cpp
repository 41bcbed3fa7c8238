// SPDX-License-Identifier: Apache-2.0
// Long because every table of the schema is written here.
#include "profiler/recording/writer.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <filesystem>

#include "profiler/recording/blob_store.h"
#include "profiler/recording/books_codec.h"
#include "profiler/recording/open.h"
#include "profiler/recording/path_claim.h"
#include "profiler/recording/schema.h"

namespace tally::recording {
namespace {

// A step in the steady state stays below 20 KiB: its timeline is thinned to this many points, and
// further while its new bytes are more than these.
constexpr size_t kTimelinePoints = 600;
constexpr size_t kFewestPoints = 100;
constexpr size_t kTimelineBytes = 8 << 10;

int64_t unix_now_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

std::string utc_text(int64_t unix_ns) {
  const std::time_t now = unix_ns / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  const size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text.data(), size};
}

// A rollback unless commit() was reached.
class Transaction {
 public:
  explicit Transaction(Database& database) : database_(database) { database_.execute("BEGIN"); }
  ~Transaction() {
    if (!done_) sqlite3_exec(database_.handle(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit() {
    database_.execute("COMMIT");
    done_ = true;
  }

 private:
  Database& database_;
  bool done_ = false;
};

std::unique_ptr<Database> create(const std::string& path) {
  make_room(path);
  try {
    auto database = std::make_unique<Database>(
        std::filesystem::absolute(path).string(),
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX);
    // The tables go into the file itself, before WAL: its header tells whose it is from the start.
    database->execute("PRAGMA synchronous=OFF; PRAGMA cache_size=-1024");
    create_schema(*database);
    const ProcessIdentity me = this_process();
    Statement run(*database,
                  "INSERT INTO run(run, started, ended, pid, pid_start, pid_namespace, boot_id, "
                  "start_unix_ns) VALUES(0, ?1, 'running', ?2, ?3, ?4, ?5, ?6)");
    const int64_t now_ns = unix_now_ns();
    run.run(utc_text(now_ns), me.pid, me.start_ticks, me.pid_namespace, me.boot_id, now_ns);
    // NORMAL syncs at checkpoints only: SIGKILL loses no committed step, a power failure loses the
    // last ones but leaves a readable file.
    database->execute(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=4000");
    return database;
  } catch (const SqliteError& error) {
    remove_files(path);
    throw Error("cannot record to {}: {}", path, error.what());
  }
}

}  // namespace

// What the tables need of the statements; they live as long as the connection.
class Writer::Impl {
 public:
  Impl(const std::string& path, const StringTable& strings)
      : path_(path),
        strings_(strings),
        claim_(path),
        database_(create(path)),
        blobs_(*database_),
        insert_string_(*database_, "INSERT INTO string VALUES(?1, ?2)"),
        insert_step_(*database_, "INSERT INTO step VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)"),
        insert_step_device_(
            *database_, "INSERT INTO step_device VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)"),
        insert_phase_(*database_, "INSERT INTO phase VALUES(?1,?2,?3,?4,?5,?6)"),
        insert_work_(*database_, "INSERT INTO work VALUES(?1,?2,?3,?4,?5,?6,?7)"),
        insert_kernel_(*database_, "INSERT INTO kernel VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)"),
        insert_executed_flops_(*database_, "INSERT INTO executed_flops VALUES(?1,?2,?3,?4)"),
        insert_kernel_flops_(*database_, "INSERT INTO kernel_flops VALUES(?1,?2,?3,?4)"),
        insert_region_(*database_, "INSERT INTO region VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)"),
        insert_unit_(*database_, "INSERT INTO unit VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)"),
        insert_mark_(*database_,
                     "INSERT INTO mark "
                     "VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)"),
        insert_mark_caching_(*database_,
                             "INSERT INTO mark_caching VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)"),
        insert_mark_role_(*database_, "INSERT INTO mark_role VALUES(?1,?2,?3,?4)"),
        update_run_(*database_,
                    "UPDATE run SET ended=?1, overhead_seconds=?2, bookkeeper_seconds=?3, "
                    "overhead_bytes=?4, dropped_events=?5") {}

  pid_t owner() const { return owner_; }
  std::string problem() const {
    if (problem_.empty()) return "";
    return fmt::format("not everything could be recorded to {}: {} (steps that are missing: {})",
                       path_, problem_, lost_steps_);
  }

  // Runs `write` as one transaction; what it throws becomes the problem. True when committed.
  template <typename Write>
  bool attempt(Write write) noexcept {
    try {
      if (getpid() != owner_ || finished_) return false;
      const uint32_t strings_before = strings_written_;
      const int64_t mark_before = next_mark_;
      try {
        Transaction transaction(*database_);
        write();
        write_strings();
        transaction.commit();
        return true;
      } catch (const std::exception& error) {
        strings_written_ = strings_before;
        next_mark_ = mark_before;
        blobs_.forget();
        notes_written_.reset();
        if (problem_.empty()) problem_ = error.what();
        return false;
      }
    } catch (...) {  // no memory left for the message itself
      return false;
    }
  }

  void remove_step(uint64_t step);
  void write_run(const RunInfo& run);
  void write_step(const StepBooks& step);
  void write_end(const RunEnd& end);
  void finish(const RunEnd& end);
  void count_lost_step() { ++lost_steps_; }

 private:
  void fold();
  void write_strings();
  void write_device(uint64_t step, const DeviceBooks& books, bool detailed);
  void write_mark(uint64_t step, DeviceIndex device, const MarkBook& mark);
  void write_work(uint64_t step, const std::vector<OperatorRow>& operators);
  std::vector<TimelinePoint> thin(const DeviceBooks& books);

  const std::string path_;
  const StringTable& strings_;
  const pid_t owner_ = getpid();
  PathClaim claim_;
  std::unique_ptr<Database> database_;
  BlobStore blobs_;
  Statement insert_string_, insert_step_, insert_step_device_, insert_phase_, insert_work_,
      insert_kernel_, insert_executed_flops_, insert_kernel_flops_, insert_region_, insert_unit_, insert_mark_, insert_mark_caching_,
      insert_mark_role_, update_run_;
  uint32_t strings_written_ = 0;
  int64_t next_mark_ = 1;
  std::optional<std::vector<std::string>> notes_written_;
  std::optional<uint64_t> provisional_;  // the step that was written before its end
  bool finished_ = false;
  std::string problem_;
  uint64_t lost_steps_ = 0;
};

void Writer::Impl::write_strings() {
  const uint32_t size = strings_.size();
  for (; strings_written_ < size; ++strings_written_) {
    insert_string_.run(strings_written_, strings_.text({strings_written_}));
  }
}

void Writer::Impl::write_run(const RunInfo& run) {
  Database& db = *database_;
  const bool distributed = run.rank >= 0;
  Statement(db, "UPDATE run SET rank=?1, world_size=?2, model=?3")
      .run(distributed ? std::optional(run.rank) : std::nullopt,
           distributed ? std::optional(run.world_size) : std::nullopt, run.model);
  if (run.start_unix_ns != 0) {
    Statement(db, "UPDATE run SET start_unix_ns=?1").run(run.start_unix_ns);
  }
  db.execute(
      "DELETE FROM command; DELETE FROM version; DELETE FROM option; DELETE FROM device;"
      "DELETE FROM source; DELETE FROM module; DELETE FROM parameter; DELETE FROM optimizer");
  const auto rows = [&db](const auto& values, const char* sql, auto insert) {
    Statement statement(db, sql);
    for (size_t i = 0; i < values.size(); ++i) insert(statement, i, values[i]);
  };
  const auto pair = [](Statement& s, size_t i, const auto& p) { s.run(i, p.first, p.second); };
  rows(run.command, "INSERT INTO command VALUES(?1,?2)",
       [](Statement& s, size_t i, const std::string& argument) { s.run(i, argument); });
  rows(run.versions, "INSERT INTO version VALUES(?1,?2,?3)", pair);
  rows(run.options, "INSERT INTO option VALUES(?1,?2,?3)", pair);
  rows(run.devices, "INSERT INTO device VALUES(?1,?2,?3,?4)",
       [](Statement& s, size_t i, const DeviceInfo& d) { s.run(i, d.id, d.name, d.memory_bytes); });
  rows(
      run.sources, "INSERT INTO source VALUES(?1,?2,?3,?4)",
      [](Statement& s, size_t i, const SourceInfo& d) { s.run(i, d.name, d.available, d.reason); });
  rows(run.modules, "INSERT INTO module VALUES(?1,?2,?3)",
       [](Statement& s, size_t i, const ModuleInfo& m) { s.run(i, m.name.value, m.type.value); });
  rows(run.parameters, "INSERT INTO parameter VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)",
       [](Statement& s, size_t i, const ParameterInfo& p) {
         const auto optimizer =
             p.optimizer_index < 0 ? std::nullopt : std::optional<int64_t>(p.optimizer_index);
         s.run(i, p.name.value, p.module.value, p.dtype.value, p.shape.value, p.elements, p.bytes,
               p.trainable, p.is_buffer, p.shared, optimizer);
       });
  rows(run.optimizers, "INSERT INTO optimizer VALUES(?1,?2,?3,?4)",
       [](Statement& s, size_t i, const OptimizerInfo& o) {
         s.run(i, o.type.value, o.recipe.value, o.parameters);
       });
}

void Writer::Impl::remove_step(uint64_t step) {
  for (const char* table : {"mark_role", "mark_caching"}) {
    Statement(*database_, std::string("DELETE FROM ") + table + " WHERE mark IN (SELECT mark FROM mark WHERE step=?1)")
        .run(step);
  }
  for (const char* table :
       {"mark", "step", "step_device", "phase", "work", "kernel", "executed_flops", "kernel_flops",
        "region", "unit"}) {
    Statement(*database_, std::string("DELETE FROM ") + table + " WHERE step=?1").run(step);
  }
}

void Writer::Impl::write_step(const StepBooks& step) {
  if (provisional_ == step.index) remove_step(step.index);
  provisional_ = step.provisional ? std::optional(step.index) : std::nullopt;
  const int64_t operators = blobs_.id_of(encode_operators(step.operators));
  const std::string times = pack(encode_operator_times(step.operators));
  insert_step_.run(step.index, step.start_ns, step.duration_ns, step.micro_steps, step.detailed,
                   step.tokens, step.events, step.unmatched_frees, step.profiler_ns, operators,
                   Blob{times});
  for (size_t i = 0; i < step.phases.size(); ++i) {
    const PhaseSpan& span = step.phases[i];
    insert_phase_.run(step.index, i, key(span.phase), span.micro_step, span.begin_ns, span.end_ns);
  }
  write_work(step.index, step.operators);
  for (size_t i = 0; i < step.kernels.size(); ++i) {
    const KernelRow& k = step.kernels[i];
    insert_kernel_.run(step.index, i, key(k.phase), k.module.value, k.op.value, k.kernel.value,
                       k.calls, k.device_ns, k.tensor_flops, k.scalar_flops, k.dram_bytes);
    for (const auto& part : k.by_format) {
      insert_kernel_flops_.run(step.index, i, key(part.format), part.flops);
    }
  }
  for (size_t i = 0; i < step.regions.size(); ++i) {
    const RegionRow& r = step.regions[i];
    insert_region_.run(step.index, i, r.micro_step, r.module.value, r.node.value, r.kept_bytes,
                       r.avoided_bytes, r.flops, r.nanoseconds, r.begin_bytes, r.peak_bytes);
  }
  for (size_t i = 0; i < step.units.size(); ++i) {
    const UnitRow& u = step.units[i];
    insert_unit_.run(step.index, i, u.micro_step, u.unit.value, u.activation_bytes, u.output_bytes,
                     u.forward_end_ns, u.backward_begin_ns, u.backward_end_ns);
  }
  for (const DeviceBooks& books : step.devices) write_device(step.index, books, step.detailed);
}

void Writer::Impl::write_work(uint64_t step, const std::vector<OperatorRow>& operators) {
  struct Sum {
    int64_t calls = 0;
    double flops = 0, torch_flops = 0, elementwise_flops = 0;
    int64_t nanoseconds = 0;
    FlopsByFormat executed;
  };
  std::array<Sum, kPhaseCount> sums;
  for (const OperatorRow& row : operators) {
    Sum& phase_sum = sums[static_cast<size_t>(row.phase)];
    phase_sum.calls += row.calls;
    phase_sum.flops += row.flops;
    phase_sum.torch_flops += row.torch_flops;
    phase_sum.elementwise_flops += row.elementwise_flops;
    phase_sum.nanoseconds += row.nanoseconds;
    phase_sum.executed.add(row.by_format);
  }
  for (size_t i = 0; i < kPhaseCount; ++i) {
    const Sum& s = sums[i];
    for (const auto& part : s.executed) {
      insert_executed_flops_.run(step, kPhaseWords[i].key, key(part.format), part.flops);
    }
    if (s.calls == 0 && s.flops == 0 && s.elementwise_flops == 0) continue;
    insert_work_.run(step, kPhaseWords[i].key, s.calls, s.flops, s.torch_flops, s.elementwise_flops,
                     s.nanoseconds);
  }
}

std::vector<TimelinePoint> Writer::Impl::thin(const DeviceBooks& books) {
  size_t limit = kTimelinePoints;
  auto points = thin_timeline(books.timeline, books.marks, limit);
  while (limit > kFewestPoints) {
    const std::string raw = encode_timeline(points);
    if (raw.size() <= kTimelineBytes || blobs_.cost(raw) <= kTimelineBytes) break;
    limit = std::max(kFewestPoints, limit * 2 / 3);
    points = thin_timeline(books.timeline, books.marks, limit);
  }
  return points;
}

void Writer::Impl::write_device(uint64_t step, const DeviceBooks& books, bool detailed) {
  for (const MarkBook& mark : books.marks) write_mark(step, books.device, mark);
  const auto points = detailed ? books.timeline : thin(books);
  const std::string times = pack(encode_timeline_times(points));
  std::optional<int64_t> blocks;
  if (!books.peak_blocks.empty()) blocks = blobs_.id_of(encode_blocks(books.peak_blocks));
  insert_step_device_.run(step, books.device, books.forward_temporary_peak,
                          books.backward_temporary_peak, books.optimizer_temporary_peak,
                          books.foreign_bytes, books.adopted_bytes, books.largest_difference,
                          books.allocations, books.frees, blobs_.id_of(encode_timeline(points)), Blob{times}, blocks);
}

void Writer::Impl::write_mark(uint64_t step, DeviceIndex device, const MarkBook& mark) {
  const int64_t id = next_mark_++;
  const auto expected = mark.expected_saved_bytes < 0
                            ? std::nullopt
                            : std::optional<int64_t>(mark.expected_saved_bytes);
  insert_mark_.run(id, step, device, key(mark.mark), mark.micro_step, mark.time_ns, mark.bytes,
                   mark.allocator_bytes, mark.bytes - mark.allocator_bytes, mark.saved_bytes,
                   mark.saved_parameter_bytes, mark.saved_number_bytes, expected, key(mark.phase),
                   mark.module.value, mark.op.value, mark.wanted_bytes, mark.limit_bytes,
                   mark.source.value);
  if (mark.caching) {
    const CachingBook& caching = *mark.caching;
    const auto known = [](int64_t bytes) {
      return bytes < 0 ? std::nullopt : std::optional<int64_t>(bytes);
    };
    insert_mark_caching_.run(id, caching.reserved_bytes, caching.active_bytes,
                             caching.allocated_bytes, caching.largest_free_bytes,
                             known(caching.allocator_reserved_bytes),
                             known(caching.allocator_active_bytes),
                             known(caching.allocator_allocated_bytes), known(caching.outside_bytes),
                             caching.is_exact);
  }
  std::array<std::vector<Cell>, kRoleCount> cells;
  for (const Cell& cell : mark.cells) cells[static_cast<size_t>(cell.role)].push_back(cell);
  for (size_t role = 0; role < kRoleCount; ++role) {
    if (mark.roles[role] == 0 && cells[role].empty()) continue;
    std::optional<int64_t> blob;
    if (!cells[role].empty()) {
      std::stable_sort(cells[role].begin(), cells[role].end(),
                       [](const Cell& a, const Cell& b) { return a.module < b.module; });
      blob = blobs_.id_of(encode_cells(cells[role]));
    }
    insert_mark_role_.run(id, role, mark.roles[role], blob);
  }
}

void Writer::Impl::write_end(const RunEnd& end) {
  update_run_.run(end.ended, end.overhead_seconds, end.bookkeeper_seconds, end.overhead_bytes,
                  end.dropped_events);
  if (notes_written_ == end.notes) return;
  database_->execute("DELETE FROM note");
  Statement insert(*database_, "INSERT INTO note VALUES(?1,?2)");
  for (size_t i = 0; i < end.notes.size(); ++i) insert.run(i, end.notes[i]);
  notes_written_ = end.notes;
}

// Folds the log into the file, which gives its space back: also a full disk may take the last
// words then. A reader that looks on right now keeps the log; nothing is lost.
void Writer::Impl::fold() {
  sqlite3_exec(database_->handle(), "PRAGMA wal_checkpoint(TRUNCATE)", nullptr, nullptr, nullptr);
}

void Writer::Impl::finish(const RunEnd& end) {
  if (getpid() != owner_ || finished_) return;
  fold();
  attempt([&] { write_end(end); });
  finished_ = true;
  sqlite3_exec(database_->handle(), "PRAGMA journal_mode=DELETE", nullptr, nullptr, nullptr);
}

Writer::Writer(const std::string& path, const StringTable& strings)
    : impl_(std::make_unique<Impl>(path, strings)) {}

Writer::~Writer() {
  // A forked child shares our file: closing it there would fold the log under the parent's feet.
  if (getpid() != impl_->owner()) (void)impl_.release();
}

void Writer::write_run(const RunInfo& run) {
  impl_->attempt([&] { impl_->write_run(run); });
}

void Writer::write_step(const StepBooks& step, const RunEnd& so_far) {
  const bool written = impl_->attempt([&] {
    impl_->write_step(step);
    impl_->write_end(so_far);
  });
  if (!written) impl_->count_lost_step();
}

void Writer::finish(const RunEnd& end) { impl_->finish(end); }

std::string Writer::problem() const { return impl_->problem(); }

}  // namespace tally::recording
