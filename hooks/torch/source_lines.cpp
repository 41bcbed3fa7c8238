// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/source_lines.h"

#include <fmt/format.h>
#include <torch/csrc/profiler/combined_traceback.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "hooks/torch/python_api.h"
#include "hooks/torch/runtime.h"
#include "profiler/core/hook_timer.h"

namespace tally::hooks {

using torch::CapturedTraceback;

// The frames are private; an explicit instantiation may name them.
using Frames = std::vector<CapturedTraceback::PyFrame>;
Frames CapturedTraceback::*frames_member();
template <Frames CapturedTraceback::*Member>
struct FramesAccess {
  friend Frames CapturedTraceback::*frames_member() { return Member; }
};
template struct FramesAccess<&CapturedTraceback::frames_>;

namespace {

std::atomic<int64_t> from_bytes{0};

class Lines {
 public:
  void set_folders(std::vector<std::string> folders) {
    const std::lock_guard lock(mutex_);
    for (std::string& folder : folders) {
      if (!folder.ends_with('/')) folder += '/';
    }
    folders_ = std::move(folders);
    known_.clear();
  }

  // The line of the innermost frame that is the program's; "" where there is none.
  StringId find(Context& context, const Frames& frames) {
    for (const CapturedTraceback::PyFrame& frame : frames) {
      const StringId line = find(context, frame);
      if (line) return line;
    }
    return {};
  }

 private:
  // Programs that make code without end keep no more than this.
  static constexpr size_t kMost = 1 << 16;
  struct Key {
    void* code;
    int instruction;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const noexcept {
      return (reinterpret_cast<uintptr_t>(key.code) >> 4) * 0x9E3779B97F4A7C15ull +
             static_cast<uint32_t>(key.instruction) * 0xBF58476D1CE4E5B9ull;
    }
  };

  StringId find(Context& context, const CapturedTraceback::PyFrame& frame) {
    const Key key{frame.code, frame.lasti};
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = known_.find(key); found != known_.end()) return found->second;
    }
    const PythonLock lock_python;
    if (!lock_python.held()) return {};
    const std::string file = python().text_attribute(frame.code, "co_filename");
    const int line = python().line_of(frame.code, frame.lasti);
    const std::lock_guard lock(mutex_);
    const StringId text = is_own(file)
                              ? context.strings.intern(fmt::format("{}:{}", shortened(file), line))
                              : StringId{};
    if (known_.size() < kMost && known_.emplace(key, text).second) {
      python().increment(frame.code);  // the address is its name: it must not be another's
    }
    return text;
  }

  static size_t after_packages(const std::string& file) {
    for (const std::string_view folder : {"/site-packages/", "/dist-packages/"}) {
      const size_t at = file.rfind(folder);
      if (at != std::string::npos) return at + folder.size();
    }
    return std::string::npos;
  }

  // Neither Torch's nor the interpreter's, nor code that torch.compile wrote.
  bool is_own(const std::string& file) const {
    if (file.empty() || file.front() == '<' || file.find("/torchinductor_") != std::string::npos) {
      return false;
    }
    const size_t package = after_packages(file);
    return std::none_of(folders_.begin(), folders_.end(), [&](const std::string& folder) {
      return file.starts_with(folder) && (package == std::string::npos || folder.size() > package);
    });
  }

  // As a reader knows it: below the working folder, or from the package's name on.
  static std::string shortened(const std::string& file) {
    const size_t package = after_packages(file);
    if (package != std::string::npos) return file.substr(package);
    char here[4096];
    if (getcwd(here, sizeof here)) {
      const std::string folder = std::string(here) + "/";
      if (folder.size() > 1 && file.starts_with(folder)) return file.substr(folder.size());
    }
    return file;
  }

  std::mutex mutex_;
  std::vector<std::string> folders_;
  std::unordered_map<Key, StringId, Hash> known_;
};
Lines& lines() {
  static auto* const instance = new Lines;
  return *instance;
}

// Blocks whose line is told when the operator ends, of one thread.
struct Remembered {
  static constexpr size_t kMost = 16;
  uint64_t pointers[kMost];
  size_t count = 0;
  bool asking = false;  // for a line: what Python lets go of meanwhile asks for none
};

bool is_wanted(int64_t bytes) noexcept {
  const int64_t from = from_bytes.load(std::memory_order_relaxed);
  return from > 0 && bytes >= from;
}

// "" where this thread runs no Python.
StringId find_line(Context& context, Remembered& thread) noexcept {
  if (thread.asking) return {};
  const int64_t begin = now_ns();
  thread.asking = true;
  StringId line;
  try {
    const auto traceback =
        CapturedTraceback::gather(/*python=*/true, /*script=*/false, /*cpp=*/false);
    line = lines().find(context, (*traceback).*frames_member());
  } catch (...) {  // no memory for it, or an interpreter that ends: the block has no line
  }
  thread.asking = false;
  add_hook_time(now_ns() - begin);
  return line;
}

void push_line(Context& context, uint64_t pointer, StringId line) noexcept {
  Event event;
  event.kind = EventKind::kSource;
  event.a = pointer;
  event.id = line.value;
  context.log.push(event);
}

void tell_line_of_next(Context& context) noexcept {
  Remembered* const thread = OfThread<Remembered>::get();
  if (!thread) return;
  if (const StringId line = find_line(context, *thread)) push_line(context, 0, line);
}

}  // namespace

void watch_source_lines(int64_t bytes) noexcept {
  from_bytes.store(bytes > 0 && python().is_there() ? bytes : 0);
}

void pass_over_folders(std::vector<std::string> folders) {
  lines().set_folders(std::move(folders));
}

void tell_source_line(Context& context, int64_t bytes) noexcept {
  if (is_wanted(bytes)) tell_line_of_next(context);
}

void tell_source_line_of_failure(Context& context) noexcept {
  if (from_bytes.load(std::memory_order_relaxed) > 0) tell_line_of_next(context);
}

void tell_source_line_later(Context&, uint64_t pointer, int64_t bytes) noexcept {
  if (!is_wanted(bytes)) return;
  Remembered* const thread = OfThread<Remembered>::get();
  if (thread && thread->count < Remembered::kMost) thread->pointers[thread->count++] = pointer;
}

void tell_remembered_blocks(Context& context) noexcept {
  if (from_bytes.load(std::memory_order_relaxed) == 0) return;
  Remembered* const thread = OfThread<Remembered>::get();
  if (!thread || thread->count == 0 || thread->asking) return;
  const StringId line = find_line(context, *thread);
  for (size_t i = 0; line && i < thread->count; ++i) push_line(context, thread->pointers[i], line);
  thread->count = 0;
}

}  // namespace tally::hooks
