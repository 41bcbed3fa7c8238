// SPDX-License-Identifier: Apache-2.0
// Long because every table of the schema is read here.
#include "profiler/recording/reader.h"

#include <algorithm>
#include <set>
#include <unordered_map>

#include "profiler/recording/books_codec.h"
#include "profiler/recording/columns.h"
#include "profiler/recording/open.h"

namespace tally::recording {
namespace {

class Loading {
 public:
  Loading(Database& database, const std::string& path, const ReadOptions& options)
      : db_(database), options_(options), blob_(database, "SELECT data FROM blob WHERE blob=?1") {
    run_.path = path;
  }

  Run load() {
    // One view of the file, also while somebody writes it.
    db_.execute("BEGIN");
    run_.schema = db_.integer("PRAGMA user_version");
    run_.step_count = db_.integer("SELECT count(*) FROM step");
    load_strings();
    load_run();
    if (options_.load != Load::kRun) {
      choose_full_steps();
      load_steps();
      load_phases();
      load_sums();
      load_kernels();
      if (run_.schema >= 2) load_regions();
      load_devices();
      load_marks();
    }
    db_.execute("COMMIT");
    return std::move(run_);
  }

 private:
  template <typename Row>
  void each(const std::string& sql, Row row) {
    Statement statement(db_, sql);
    while (statement.step()) row(statement);
  }
  StringId string_id(const Statement& s, int column) const { return checked(s.integer(column)); }
  StringId checked(int64_t id) const {
    if (id < 0 || id >= static_cast<int64_t>(run_.strings->size())) {
      throw Error("it names a string that it does not hold");
    }
    return {static_cast<uint32_t>(id)};
  }
  template <typename Rows>
  void check_names(const Rows& rows) const {
    for (const auto& row : rows) {
      checked(row.module.value);
      if constexpr (requires { row.op; }) checked(row.op.value);
    }
  }
  template <typename E>
  E word(std::optional<E> found, const Statement& s, int column) const {
    if (!found) throw Error("it holds the unknown word '{}'", s.text(column));
    return *found;
  }
  std::string blob(int64_t id) {
    blob_.bind(id);
    if (!blob_.step()) throw Error("it lacks the block of columns {}", id);
    return unpack(blob_.blob(0));
  }
  // Null for a step that is not there: rows of a damaged file.
  RecordedStep* step_at(int64_t index) {
    const auto found = position_.find(index);
    if (found == position_.end()) throw Error("it holds parts of a step {} that is missing", index);
    return &run_.steps[found->second];
  }
  DeviceBooks* device_at(int64_t step, int64_t device) {
    for (DeviceBooks& books : step_at(step)->books.devices) {
      if (books.device == device) return &books;
    }
    throw Error("it holds a mark of a device that step {} does not have", step);
  }

  void load_strings();
  void load_run();
  void choose_full_steps();
  void load_steps();
  void load_phases();
  void load_sums();
  void load_kernels();
  void load_regions();
  void load_devices();
  void load_marks();

  Database& db_;
  const ReadOptions& options_;
  Statement blob_;
  Run run_;
  std::set<int64_t> full_;
  std::unordered_map<int64_t, size_t> position_;  // of a step's index in run_.steps
};

void Loading::load_strings() {
  auto strings = std::make_shared<StringTable>();
  int64_t next = 0;
  each("SELECT string, text FROM string ORDER BY string", [&](const Statement& s) {
    if (s.integer(0) != next++ || strings->intern(s.text(1)).value != s.integer(0)) {
      throw Error("its table of strings has a gap or a double");
    }
  });
  run_.strings = std::move(strings);
}

void Loading::load_run() {
  RunInfo& info = run_.info;
  RunEnd& end = run_.end;
  bool found = false;
  each(
      "SELECT started, ended, overhead_seconds, bookkeeper_seconds, overhead_bytes, dropped_events,"
      " pid, pid_start, pid_namespace, boot_id FROM run",
      [&](const Statement& s) {
        found = true;
        run_.started = s.text(0);
        end.ended = s.text(1);
        end.overhead_seconds = s.real(2);
        end.bookkeeper_seconds = s.real(3);
        end.overhead_bytes = s.integer(4);
        end.dropped_events = static_cast<uint64_t>(s.integer(5));
        const ProcessIdentity process{s.integer(6), s.integer(7), s.text(8), s.text(9)};
        if (end.ended == "running" && !may_be_alive(process)) end.ended = "killed";
      });
  if (!found) throw Error("it says nothing about its run");
  if (run_.schema >= 2) {  // version 1 knew nothing of these
    each("SELECT start_unix_ns, rank, world_size, model FROM run", [&](const Statement& s) {
      run_.start_unix_ns = s.integer(0);
      info.rank = s.is_null(1) ? -1 : s.integer(1);
      info.world_size = s.integer(2);
      info.model = s.text(3);
    });
  }
  each("SELECT text FROM note ORDER BY position",
       [&](const Statement& s) { end.notes.push_back(s.text(0)); });
  each("SELECT argument FROM command ORDER BY position",
       [&](const Statement& s) { info.command.push_back(s.text(0)); });
  each("SELECT name, value FROM version ORDER BY position",
       [&](const Statement& s) { info.versions.emplace_back(s.text(0), s.text(1)); });
  each("SELECT name, value FROM option ORDER BY position",
       [&](const Statement& s) { info.options.emplace_back(s.text(0), s.text(1)); });
  each("SELECT id, name, memory_bytes FROM device ORDER BY device", [&](const Statement& s) {
    info.devices.push_back({s.text(0), s.text(1), s.integer(2)});
  });
  each("SELECT name, available, reason FROM source ORDER BY position", [&](const Statement& s) {
    info.sources.push_back({s.text(0), s.integer(1) != 0, s.text(2)});
  });
  each("SELECT name, type FROM module ORDER BY position", [&](const Statement& s) {
    info.modules.push_back({string_id(s, 0), string_id(s, 1)});
  });
  each("SELECT type, recipe, parameters FROM optimizer ORDER BY position", [&](const Statement& s) {
    info.optimizers.push_back({string_id(s, 0), string_id(s, 1), s.integer(2)});
  });
  each(
      "SELECT name, module, dtype, shape, elements, bytes, trainable, is_buffer, shared, optimizer "
      "FROM parameter ORDER BY position",
      [&](const Statement& s) {
        ParameterInfo p{string_id(s, 0),   string_id(s, 1),
                        string_id(s, 2),   string_id(s, 3),
                        s.integer(4),      s.integer(5),
                        s.integer(6) != 0, s.integer(7) != 0,
                        s.integer(8) != 0, s.is_null(9) ? -1 : s.integer(9)};
        if (p.optimizer_index >= static_cast<int64_t>(info.optimizers.size())) {
          throw Error("it names an optimizer that it does not hold");
        }
        info.parameters.push_back(p);
      });
}

void Loading::choose_full_steps() {
  if (options_.load == Load::kAll) return;
  const auto add = [this](const Statement& s) { full_.insert(s.integer(0)); };
  each("SELECT step FROM step WHERE detailed", add);
  each("SELECT step FROM step ORDER BY step DESC LIMIT 4", add);
  each("SELECT step FROM mark WHERE name='peak' ORDER BY bytes DESC, step LIMIT 1", add);
  if (options_.step) full_.insert(static_cast<int64_t>(*options_.step));
}

void Loading::load_steps() {
  each(
      "SELECT step, start_ns, duration_ns, micro_steps, detailed, tokens, events, unmatched_frees, "
      "profiler_ns, operators, operator_times FROM step ORDER BY step",
      [&](const Statement& s) {
        RecordedStep step;
        StepBooks& books = step.books;
        books.index = static_cast<uint64_t>(s.integer(0));
        books.start_ns = s.integer(1);
        books.duration_ns = s.integer(2);
        books.micro_steps = static_cast<uint16_t>(s.integer(3));
        books.detailed = s.integer(4) != 0;
        books.tokens = s.real(5);
        books.events = static_cast<uint64_t>(s.integer(6));
        books.unmatched_frees = static_cast<uint64_t>(s.integer(7));
        books.profiler_ns = s.integer(8);
        step.full = options_.load == Load::kAll || full_.contains(s.integer(0));
        if (step.full) {
          books.operators = decode_operators(blob(s.integer(9)), unpack(s.blob(10)));
          check_names(books.operators);
        }
        position_.emplace(s.integer(0), run_.steps.size());
        run_.steps.push_back(std::move(step));
      });
}

void Loading::load_phases() {
  each("SELECT step, name, micro_step, begin_ns, end_ns FROM phase ORDER BY step, position",
       [&](const Statement& s) {
         step_at(s.integer(0))
             ->books.phases.push_back({word(phase_of(s.text(1)), s, 1),
                                       static_cast<uint16_t>(s.integer(2)), s.integer(3),
                                       s.integer(4)});
       });
}

void Loading::load_sums() {
  each("SELECT step, phase, calls, flops, torch_flops, elementwise_flops, nanoseconds FROM work",
       [&](const Statement& s) {
         RecordedStep* step = step_at(s.integer(0));
         if (step->full) return;
         OperatorRow row;
         row.phase = word(phase_of(s.text(1)), s, 1);
         row.calls = static_cast<uint32_t>(s.integer(2));
         row.flops = s.real(3);
         row.torch_flops = s.real(4);
         row.elementwise_flops = s.real(5);
         row.nanoseconds = s.integer(6);
         step->books.operators.push_back(row);
       });
}

void Loading::load_kernels() {
  if (db_.integer("SELECT count(*) FROM sqlite_master WHERE type='table' AND name='kernel'") == 0) {
    return;  // written before there was such a table
  }
  each(
      "SELECT step, phase, module, operator, name, calls, device_ns, tensor_flops, scalar_flops, "
      "dram_bytes FROM kernel ORDER BY step, position",
      [&](const Statement& s) {
        step_at(s.integer(0))
            ->books.kernels.push_back(
                {word(phase_of(s.text(1)), s, 1), string_id(s, 2), string_id(s, 3), string_id(s, 4),
                 static_cast<uint32_t>(s.integer(5)), s.real(6), s.real(7), s.real(8), s.real(9), {}});
      });
  if (run_.schema < 5) return;
  each("SELECT step, position, format, flops FROM kernel_flops", [&](const Statement& s) {
    auto& kernels = step_at(s.integer(0))->books.kernels;
    if (s.integer(1) < 0 || s.integer(1) >= static_cast<int64_t>(kernels.size())) {
      throw Error("it holds FLOPs of a kernel that is missing");
    }
    kernels[static_cast<size_t>(s.integer(1))].by_format.add(word(flop_format_of(s.text(2)), s, 2),
                                                             s.real(3));
  });
}

void Loading::load_regions() {
  each("SELECT step, micro_step, module, node, kept_bytes, avoided_bytes, flops, nanoseconds, "
       "begin_bytes, peak_bytes FROM region ORDER BY step, position",
       [&](const Statement& s) {
         RegionRow row;
         row.micro_step = static_cast<uint16_t>(s.integer(1));
         row.module = string_id(s, 2);
         row.node = string_id(s, 3);
         row.kept_bytes = s.integer(4);
         row.avoided_bytes = s.integer(5);
         row.flops = s.real(6);
         row.nanoseconds = s.integer(7);
         row.begin_bytes = s.integer(8);
         row.peak_bytes = s.integer(9);
         step_at(s.integer(0))->books.regions.push_back(row);
       });
  each("SELECT step, micro_step, name, activation_bytes, output_bytes, forward_end_ns, "
       "backward_begin_ns, backward_end_ns FROM unit ORDER BY step, position",
       [&](const Statement& s) {
         UnitRow row;
         row.micro_step = static_cast<uint16_t>(s.integer(1));
         row.unit = string_id(s, 2);
         row.activation_bytes = s.integer(3);
         row.output_bytes = s.integer(4);
         row.forward_end_ns = s.integer(5);
         row.backward_begin_ns = s.integer(6);
         row.backward_end_ns = s.integer(7);
         step_at(s.integer(0))->books.units.push_back(row);
       });
}

void Loading::load_devices() {
  each(
      "SELECT step, device, forward_temporary_peak, backward_temporary_peak, "
      "optimizer_temporary_peak, foreign_bytes, " +
          std::string(run_.schema >= 5 ? "adopted_bytes" : "0") +
          ", largest_difference, allocations, frees, timeline, timeline_times, peak_blocks "
          "FROM step_device ORDER BY step, device",
      [&](const Statement& s) {
        DeviceBooks books;
        if (s.integer(1) < 0 || s.integer(1) >= static_cast<int64_t>(run_.info.devices.size())) {
          throw Error("it names a device that it does not hold");
        }
        books.device = static_cast<DeviceIndex>(s.integer(1));
        books.forward_temporary_peak = s.integer(2);
        books.backward_temporary_peak = s.integer(3);
        books.optimizer_temporary_peak = s.integer(4);
        books.foreign_bytes = s.integer(5);
        books.adopted_bytes = s.integer(6);
        books.largest_difference = s.integer(7);
        books.allocations = static_cast<uint64_t>(s.integer(8));
        books.frees = static_cast<uint64_t>(s.integer(9));
        RecordedStep* step = step_at(s.integer(0));
        if (step->full) {
          books.timeline = decode_timeline(blob(s.integer(10)), unpack(s.blob(11)));
          check_names(books.timeline);
          if (!s.is_null(12)) {
            books.peak_blocks = decode_blocks(blob(s.integer(12)));
            check_names(books.peak_blocks);
            for (const BlockRow& row : books.peak_blocks) {
              for (const StringId id : {row.name, row.dtype, row.shape, row.source})
                checked(id.value);
            }
          }
        }
        step->books.devices.push_back(std::move(books));
      });
}

CachingBook caching_book(const Statement& s) {
  const auto known = [&s](int column) { return s.is_null(column) ? -1 : s.integer(column); };
  CachingBook book;
  book.reserved_bytes = s.integer(1);
  book.active_bytes = s.integer(2);
  book.allocated_bytes = s.integer(3);
  book.largest_free_bytes = s.integer(4);
  book.allocator_reserved_bytes = known(5);
  book.allocator_active_bytes = known(6);
  book.allocator_allocated_bytes = known(7);
  book.outside_bytes = known(8);
  book.is_exact = s.integer(9) != 0;
  return book;
}

void Loading::load_marks() {
  // Both tables in the order of the mark's id, walked side by side: far cheaper than a join.
  Statement role(db_, "SELECT mark, role, bytes, cells FROM mark_role ORDER BY mark, role");
  bool more = role.step();
  const bool has_caching = run_.schema >= 3;
  Statement caching(db_, has_caching ? "SELECT * FROM mark_caching ORDER BY mark" : "SELECT 0");
  bool more_caching = has_caching && caching.step();
  each(std::string(
           "SELECT mark, step, device, name, micro_step, time_ns, bytes, allocator_bytes, ") +
           "saved_bytes, "
           "saved_parameter_bytes, saved_number_bytes, expected_saved_bytes, phase, module, "
           "operator, " +
           std::string(run_.schema >= 3 ? "wanted_bytes, limit_bytes" : "0, 0") +
           std::string(run_.schema >= 4 ? ", source" : ", 0") + " FROM mark ORDER BY mark",
       [&](const Statement& s) {
         MarkBook mark;
         mark.mark = word(mark_of(s.text(3)), s, 3);
         mark.micro_step = static_cast<uint16_t>(s.integer(4));
         mark.time_ns = s.integer(5);
         mark.bytes = s.integer(6);
         mark.allocator_bytes = s.integer(7);
         mark.saved_bytes = s.integer(8);
         mark.saved_parameter_bytes = s.integer(9);
         mark.saved_number_bytes = s.integer(10);
         mark.expected_saved_bytes = s.is_null(11) ? -1 : s.integer(11);
         mark.phase = word(phase_of(s.text(12)), s, 12);
         mark.module = string_id(s, 13);
         mark.op = string_id(s, 14);
         mark.wanted_bytes = s.integer(15);
         mark.limit_bytes = s.integer(16);
         mark.source = string_id(s, 17);
         const bool full = step_at(s.integer(1))->full;
         for (; more && role.integer(0) == s.integer(0); more = role.step()) {
           const int64_t index = role.integer(1);
           if (index < 0 || index >= static_cast<int64_t>(kRoleCount)) {
             throw Error("it holds the unknown role {}", index);
           }
           mark.roles[static_cast<size_t>(index)] = role.integer(2);
           if (!full || role.is_null(3)) continue;
           const auto cells = decode_cells(blob(role.integer(3)), static_cast<Role>(index));
           check_names(cells);
           mark.cells.insert(mark.cells.end(), cells.begin(), cells.end());
         }
         if (has_caching) {
           while (more_caching && caching.integer(0) < s.integer(0)) more_caching = caching.step();
           if (more_caching && caching.integer(0) == s.integer(0))
             mark.caching = caching_book(caching);
         }
         device_at(s.integer(1), s.integer(2))->marks.push_back(std::move(mark));
       });
  if (more) throw Error("it holds books of a mark that is missing");
}

}  // namespace

Run read_run(const std::string& path, const ReadOptions& options) {
  OpenedRecording file(path);
  try {
    return Loading(file.database(), path, options).load();
  } catch (const Error& error) {
    throw damaged(path, error.what());
  }
}

}  // namespace tally::recording
