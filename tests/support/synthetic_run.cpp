// SPDX-License-Identifier: Apache-2.0
// Long because a whole run is made up here, from modules to timelines, with books that close.
#include "tests/support/synthetic_run.h"

#include <algorithm>
#include <map>

#include "profiler/core/error.h"
#include "profiler/core/units.h"
#include "profiler/recording/writer.h"

namespace tally::test {

const char* const kHostileName =
    "</script><script>alert('\"1\"')</script>\xE2\x80\xAE"
    "drowssap\x1b[31m";

namespace {

struct Live {
  Role role = Role::kUnattributed;
  int64_t bytes = 0;
  bool saved = false;
  Phase phase = Phase::kOther;
  StringId module, op, name, shape;
  int64_t born_ns = 0;
};

// Plays the program and keeps the books of one step at a time.
class Player {
 public:
  Player(const SyntheticOptions& options, SyntheticRun& run) : o_(options), run_(run) {}
  void play();

 private:
  struct Module {
    std::string name, type;
    int64_t in = 0, out = 0;  // of a linear layer or an embedding; 0, out: a norm
    bool bias = true;
  };
  StringId id(const std::string& text) { return run_.strings->intern(text); }
  void describe();
  void play_step(int index);
  void forward(int micro_step);
  void backward(int micro_step);
  void optimize(int index);
  int alloc(Role role, int64_t bytes, const std::string& op, const std::string& shape = "",
            const std::string& name = "");
  void free(int block);
  void event(const std::string& op);
  MarkBook book(Mark mark) const;
  void set_mark(Mark mark) { device_.marks.push_back(book(mark)); }
  void begin(Phase phase, int micro_step);
  void work(const std::string& op, double flops, double elementwise);
  void put_on_card();
  CachingBook caching(int64_t bytes) const;
  void linear(const Module& module, std::vector<int>* kept);
  int64_t tokens() const { return o_.batch * sequence_; }
  int64_t jitter(int64_t below) {  // a linear congruential sequence
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int64_t>((state_ >> 33) % static_cast<uint64_t>(below));
  }

  const SyntheticOptions& o_;
  SyntheticRun& run_;
  std::vector<Module> modules_;
  std::vector<std::pair<std::string, int64_t>> trainable_;  // module, bytes of each parameter
  std::map<int, Live> live_;
  int next_block_ = 1;
  uint64_t state_ = 12345;
  int64_t clock_ns_ = 0, step_start_ns_ = 0, sequence_ = 0, total_ = 0, highest_ = 0;
  int64_t reserved_ = 0;
  Phase phase_ = Phase::kOther;
  uint16_t micro_step_ = 0;
  std::string module_;
  StepBooks step_;
  DeviceBooks device_;
  MarkBook peak_;
  std::map<int, Live> peak_live_;
  std::vector<std::pair<std::string, std::vector<int>>> graph_;  // activations by module
  std::vector<int> gradients_, inputs_;
};

void Player::describe() {
  const int64_t c = o_.width;
  modules_.push_back({"wte", "torch::nn::EmbeddingImpl", o_.vocabulary, c, false});
  modules_.push_back({"wpe", "torch::nn::EmbeddingImpl", o_.sequence, c, false});
  for (int layer = 0; layer < o_.layers; ++layer) {
    const std::string h = "h." + std::to_string(layer);
    modules_.push_back({h, "Block"});
    modules_.push_back({h + ".ln_1", "torch::nn::LayerNormImpl", 0, c});
    modules_.push_back({h + ".attn", "CausalSelfAttention"});
    modules_.push_back({h + ".attn.c_attn", "torch::nn::LinearImpl", c, 3 * c});
    modules_.push_back({h + ".attn.c_proj", "torch::nn::LinearImpl", c, c});
    modules_.push_back({h + ".ln_2", "torch::nn::LayerNormImpl", 0, c});
    modules_.push_back({h + ".mlp", "MLP"});
    modules_.push_back({h + ".mlp.c_fc", "torch::nn::LinearImpl", c, 4 * c});
    modules_.push_back({h + ".mlp.gelu", "torch::nn::GELUImpl"});
    modules_.push_back({h + ".mlp.c_proj", "torch::nn::LinearImpl", 4 * c, c});
    modules_.push_back({h + ".mlp.dropout", "torch::nn::DropoutImpl"});
    modules_.push_back({h + ".attn.dropout", "torch::nn::DropoutImpl"});
  }
  modules_.push_back({"ln_f", "torch::nn::LayerNormImpl", 0, c});
  modules_.push_back({"lm_head", "torch::nn::LinearImpl", c, o_.vocabulary, false});
  if (o_.hostile) modules_.push_back({kHostileName, "Hostile<\"&'>"});

  RunInfo& info = run_.info;
  info.command = {"./train_gpt", "--layers", std::to_string(o_.layers), "--text",
                  "it's \"a\" <file>"};
  info.versions = {
      {"torchtally", "0.1.0"}, {"torch", "2.11.0"}, {"compiler", "GCC 12.2"}, {"os", "Linux"}};
  info.options = {{"detail", "auto"}};
  info.devices = {{"cpu", "a synthetic processor", 16 * (int64_t{1} << 30)}};
  if (o_.on_card) info.devices.push_back({"cuda:0", "NVIDIA H100 80GB HBM3", 80 * kGiB});
  info.sources = {{"torch.cpu_allocator", true, ""},
                  {"torch.operators", true, ""},
                  {"torch.autograd", true, ""},
                  {"cuda", false, "built without CUDA"}};
  info.optimizers = {{id("AdamW"), id(o_.recipe), 0}};
  for (const Module& m : modules_) {
    info.modules.push_back({id(m.name), id(m.type)});
    module_ = m.name;
    const auto add = [&](const std::string& leaf, int64_t elements, const std::string& shape,
                         bool shared) {
      info.parameters.push_back({id(m.name + "." + leaf), id(m.name), id("float32"), id(shape),
                                 elements, 4 * elements, true, false, shared, 0});
      ++info.optimizers[0].parameters;
      if (shared) return;
      trainable_.emplace_back(m.name, 4 * elements);
      alloc(Role::kParameter, 4 * elements, "aten::empty", shape, m.name + "." + leaf);
    };
    if (m.out == 0) continue;
    const std::string out = std::to_string(m.out);
    if (m.in == 0) {
      add("weight", m.out, "[" + out + "]", false);
    } else {
      const bool embedding = m.type.find("Embedding") != std::string::npos;
      const std::string in = std::to_string(m.in);
      add("weight", m.in * m.out,
          embedding ? "[" + in + ", " + out + "]" : "[" + out + ", " + in + "]",
          m.name == "lm_head");  // tied to wte
    }
    if (m.bias) add("bias", m.out, "[" + out + "]", false);
    if (m.name.ends_with(".c_attn")) {
      module_ = m.name.substr(0, m.name.rfind('.'));
      const int64_t s2 = o_.sequence * o_.sequence;
      info.parameters.push_back(
          {id(module_ + ".mask"), id(module_), id("bool"), id(""), s2, s2, false, true, false, -1});
      alloc(Role::kBuffer, s2, "aten::tril", "", module_ + ".mask");
    }
  }
}

int Player::alloc(Role role, int64_t bytes, const std::string& op, const std::string& shape,
                  const std::string& name) {
  const bool saved = role == Role::kActivation;
  live_[next_block_] = {role,   bytes,    saved,     phase_,   id(module_),
                        id(op), id(name), id(shape), clock_ns_};
  total_ += bytes;
  ++device_.allocations;
  event(op);
  return next_block_++;
}

void Player::free(int block) {
  total_ -= live_.at(block).bytes;
  const std::string op = run_.text(live_.at(block).op);
  live_.erase(block);
  ++device_.frees;
  event(op);
}

void Player::event(const std::string& op) {
  clock_ns_ += 20'000 + jitter(30'000);
  TimelinePoint point{clock_ns_ - step_start_ns_, {}, phase_, micro_step_, id(module_), id(op)};
  for (const auto& [block, live] : live_) point.roles[static_cast<size_t>(live.role)] += live.bytes;
  device_.timeline.push_back(point);
  const auto highest = [&](int64_t& most, Role role) {
    most = std::max(most, point.roles[static_cast<size_t>(role)]);
  };
  highest(device_.forward_temporary_peak, Role::kTemporaryForward);
  highest(device_.backward_temporary_peak, Role::kTemporaryBackward);
  highest(device_.optimizer_temporary_peak, Role::kTemporaryOptimizer);
  ++step_.events;
  if (total_ > highest_) {
    highest_ = total_;
    peak_ = book(Mark::kPeak);
    peak_.op = id(op);
    peak_live_ = live_;
  }
}

MarkBook Player::book(Mark mark) const {
  MarkBook book;
  book.mark = mark;
  book.micro_step = micro_step_;
  book.time_ns = clock_ns_ - step_start_ns_;
  book.bytes = book.allocator_bytes = total_;
  book.phase = phase_;
  book.module = run_.strings->intern(module_);
  std::map<std::pair<Role, uint32_t>, Cell> cells;
  for (const auto& [block, live] : live_) {
    book.roles[static_cast<size_t>(live.role)] += live.bytes;
    Cell& cell = cells[{live.role, live.module.value}];
    cell.role = live.role;
    cell.module = live.module;
    cell.bytes += live.bytes;
    ++cell.blocks;
    if (live.saved) book.saved_bytes += live.bytes;
  }
  for (const auto& [where, cell] : cells) book.cells.push_back(cell);
  if (mark == Mark::kForwardEdge) {
    book.saved_parameter_bytes = book.roles[0];
    book.saved_number_bytes = 24;
    book.expected_saved_bytes = book.saved_bytes;
  }
  return book;
}

void Player::begin(Phase phase, int micro_step) {
  const int64_t now = clock_ns_ - step_start_ns_;
  if (!step_.phases.empty()) step_.phases.back().end_ns = now;
  step_.phases.push_back({phase, static_cast<uint16_t>(micro_step), now, now});
  phase_ = phase;
  micro_step_ = static_cast<uint16_t>(micro_step);
}

void Player::work(const std::string& op, double flops, double elementwise) {
  const int64_t ns = 1'000 + static_cast<int64_t>(flops / 50) + jitter(10'000);
  for (OperatorRow& row : step_.operators) {
    if (row.phase == phase_ && row.module == id(module_) && row.op == id(op)) {
      ++row.calls;
      row.flops += flops;
      row.torch_flops += flops;
      row.elementwise_flops += elementwise;
      row.nanoseconds += ns;
      return;
    }
  }
  step_.operators.push_back({phase_, id(module_), id(op), 1, flops, flops, elementwise, ns});
}

// Its output is kept; a second block is scratch.
void Player::linear(const Module& m, std::vector<int>* kept) {
  const std::string shape = "[" + std::to_string(o_.batch) + ", " + std::to_string(sequence_) +
                            ", " + std::to_string(m.out) + "]";
  const int scratch = alloc(Role::kTemporaryForward, 4 * m.in * 16, "aten::t");
  kept->push_back(alloc(Role::kActivation, 4 * tokens() * m.out, "aten::addmm", shape));
  work("aten::addmm", 2.0 * static_cast<double>(tokens() * m.in * m.out), 0);
  free(scratch);
}

void Player::forward(int micro_step) {
  begin(Phase::kData, micro_step);
  module_ = "";
  const std::string shape = fmt::format("[{}, {}]", o_.batch, sequence_);
  for (int i = 0; i < 2; ++i) {  // tokens and targets
    inputs_.push_back(alloc(Role::kInput, 8 * tokens(), "aten::stack", shape));
  }
  begin(Phase::kForward, micro_step);
  const auto elements = static_cast<double>(tokens() * o_.width);
  for (const Module& m : modules_) {
    module_ = m.name;
    std::vector<int> kept;
    if (m.type.find("Embedding") != std::string::npos) {
      kept.push_back(alloc(Role::kActivation, 4 * tokens() * o_.width, "aten::embedding"));
      work("aten::embedding", 0, 0);
    } else if (m.type.find("LayerNorm") != std::string::npos) {
      kept.push_back(alloc(Role::kActivation, 4 * tokens() * o_.width, "aten::native_layer_norm"));
      kept.push_back(alloc(Role::kActivation, 8 * tokens(), "aten::native_layer_norm"));
      work("aten::native_layer_norm", 0, 8 * elements);
    } else if (m.in != 0) {
      linear(m, &kept);
    } else if (m.type == "CausalSelfAttention") {
      const int64_t scores = 4 * o_.heads * o_.batch * sequence_ * sequence_;
      const int temporary = alloc(Role::kTemporaryForward, scores, "aten::bmm");
      kept.push_back(alloc(Role::kActivation, scores, "aten::_softmax"));
      free(temporary);
      kept.push_back(alloc(Role::kActivation, 4 * tokens() * o_.width, "aten::bmm"));
      work("aten::bmm", 4.0 * elements * static_cast<double>(sequence_), 0);
      work("aten::_softmax", 0, static_cast<double>(scores) / 4 * 5);
    } else if (m.type.find("GELU") != std::string::npos) {
      kept.push_back(alloc(Role::kActivation, 16 * tokens() * o_.width, "aten::gelu"));
      work("aten::gelu", 0, 32 * elements);
    } else if (m.type == "Block" || m.name == kHostileName) {
      kept.push_back(alloc(Role::kActivation, 4 * tokens() * o_.width, "aten::add"));
      work("aten::add", 0, elements);
    }
    if (!kept.empty()) graph_.emplace_back(m.name, kept);
  }
  module_ = "after lm_head";
  graph_.emplace_back(module_, std::vector{alloc(Role::kActivation, 4 * tokens() * o_.vocabulary,
                                                 "aten::_log_softmax")});
  const int loss = alloc(Role::kHeldOutput, 4, "aten::nll_loss_forward");
  set_mark(Mark::kForwardEdge);
  begin(Phase::kBackward, micro_step);
  backward(micro_step);
  module_ = "";
  free(loss);
  set_mark(Mark::kBackwardEnd);
}

void Player::backward(int micro_step) {
  int flowing = alloc(Role::kTemporaryBackward, 4 * tokens() * o_.vocabulary,
                      "aten::_log_softmax_backward_data");
  for (; !graph_.empty(); graph_.pop_back()) {
    const auto& [name, kept] = graph_.back();
    module_ = name;
    const int next = alloc(Role::kTemporaryBackward, 4 * tokens() * o_.width, "aten::mm");
    free(flowing);
    flowing = next;
    for (const Module& m : modules_) {
      if (m.name != name || m.in == 0) continue;
      work("aten::mm",
           4.0 * static_cast<double>(tokens() * m.in * m.out) *
               (m.type.find("Linear") != std::string::npos),
           0);
    }
    if (name.ends_with(".attn")) {
      work("aten::bmm", 8.0 * static_cast<double>(tokens() * o_.width * sequence_), 0);
    }
    work("autograd::backward", 0, static_cast<double>(tokens() * o_.width));
    if (micro_step == 0 && gradients_.size() < trainable_.size()) {
      for (const auto& [module, bytes] : trainable_) {
        if (module == name)
          gradients_.push_back(alloc(Role::kGradient, bytes, "aten::mm", "", module + ".grad"));
      }
    }
    for (const int block : kept) free(block);
  }
  free(flowing);
}

void Player::optimize(int index) {
  begin(Phase::kOptimizer, o_.micro_steps - 1);
  const int states = o_.recipe == "adamw" ? 2 : o_.recipe == "sgd-momentum" ? 1 : 0;
  for (const auto& [module, bytes] : trainable_) {
    module_ = module;
    for (int state = 0; index == 0 && state < states; ++state) {
      alloc(Role::kOptimizerState, bytes, "aten::zeros_like", "",
            state == 0 ? "exp_avg" : "exp_avg_sq");
    }
    const int root = alloc(Role::kTemporaryOptimizer, bytes, "aten::sqrt");
    work("aten::addcdiv_", 0, static_cast<double>(bytes) / 4 * 10);
    free(root);
  }
}

// As if each block were rounded to 512 bytes and a quarter of the free bytes lay in fragments.
CachingBook Player::caching(int64_t bytes) const {
  CachingBook book;
  book.active_bytes = book.allocated_bytes = (bytes + 511) / 512 * 512 + 64 * 512;
  book.reserved_bytes = reserved_;
  book.largest_free_bytes = (book.reserved_bytes - book.active_bytes) / 4 * 3;
  book.allocator_active_bytes = book.active_bytes;
  book.allocator_allocated_bytes = book.allocated_bytes;
  book.allocator_reserved_bytes = book.reserved_bytes;
  book.outside_bytes = 523 * kMiB;
  return book;
}

void Player::put_on_card() {
  device_.device = 1;
  size_t mark = 0;
  for (TimelinePoint& point : device_.timeline) {
    for (; mark < device_.marks.size() && device_.marks[mark].time_ns < point.time_ns; ++mark) {
      device_.marks[mark].caching = caching(device_.marks[mark].bytes);
    }
    const int64_t bytes = sum(point.roles);
    reserved_ = std::max(reserved_, (bytes + kMiB) / (2 * kMiB) * 2 * kMiB + 2 * kMiB);
    const CachingBook book = caching(bytes);
    point.reserved_bytes = book.reserved_bytes;
    point.active_bytes = book.active_bytes;
    point.largest_free_bytes = book.largest_free_bytes;
  }
  for (; mark < device_.marks.size(); ++mark) {
    device_.marks[mark].caching = caching(device_.marks[mark].bytes);
  }
  const bool is_odd = step_.index % 2 == 1;
  for (OperatorRow& row : step_.operators) {
    const double work = row.flops + row.elementwise_flops;
    if (work == 0) continue;
    if (is_odd) {
      // Half of what is executed beyond the formula ran in tf32.
      row.tensor_flops = 1.125 * row.flops;
      row.by_format.add(FlopFormat::kTensorBf16, 1.0625 * row.flops);
      row.by_format.add(FlopFormat::kTensorTf32, 0.0625 * row.flops);
      row.range_flops = row.flops;
      row.alignment = 64;
      row.device_ns = 2'000.0 * row.calls + work / 300;
      row.dram_bytes = row.flops > 0 ? row.flops / 64 : 3 * row.elementwise_flops;
      step_.kernels.push_back(
          {row.phase, row.module, row.op,
           id(row.flops > 0 ? "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64"
                            : "void at::native::vectorized_elementwise_kernel<4, float>(int)"),
           row.calls, row.device_ns, row.tensor_flops, 0, row.dram_bytes, row.by_format});
    } else {
      row.scalar_flops = row.elementwise_flops + 0.01 * row.flops;
      row.by_format.add(FlopFormat::kScalarFp32, row.scalar_flops);
      row.range_flops = row.flops;
    }
  }
}

void Player::play_step(int index) {
  sequence_ = o_.vary ? o_.sequence - jitter(o_.sequence / 4) : o_.sequence;
  step_ = {};
  device_ = {};
  highest_ = 0;
  step_start_ns_ = clock_ns_;
  module_ = "";
  begin(Phase::kOther, 0);
  set_mark(Mark::kStart);
  if (!o_.keep_gradients) {
    for (const int block : gradients_) free(block);
    gradients_.clear();
  }
  for (int micro_step = 0; micro_step < o_.micro_steps; ++micro_step) forward(micro_step);
  optimize(index);
  begin(Phase::kOther, o_.micro_steps - 1);
  module_ = "";
  for (const int block : inputs_) free(block);
  inputs_.clear();
  if (o_.leak_bytes > 0) {
    module_ = "after lm_head";
    alloc(Role::kHeldOutput, o_.leak_bytes, "aten::detach");
    module_ = "";
  }
  set_mark(Mark::kEnd);
  step_.phases.back().end_ns = clock_ns_ - step_start_ns_;

  std::stable_sort(device_.marks.begin(), device_.marks.end(),
                   [](const MarkBook& a, const MarkBook& b) { return a.time_ns < b.time_ns; });
  const auto after =
      std::upper_bound(device_.marks.begin(), device_.marks.end(), peak_,
                       [](const MarkBook& a, const MarkBook& b) { return a.time_ns < b.time_ns; });
  device_.marks.insert(after, peak_);
  step_.detailed = index < o_.detailed_steps;
  if (step_.detailed) {
    for (const auto& [block, live] : peak_live_) {
      device_.peak_blocks.push_back({live.bytes, 1, live.role, live.saved, live.phase, live.module,
                                     live.op, live.name, id("float32"), live.shape,
                                     id("train_gpt.cpp:42"),
                                     peak_.time_ns + step_start_ns_ - live.born_ns});
    }
    std::stable_sort(device_.peak_blocks.begin(), device_.peak_blocks.end(),
                     [](const BlockRow& a, const BlockRow& b) { return a.bytes > b.bytes; });
  }
  step_.index = static_cast<uint64_t>(index);
  step_.start_ns = step_start_ns_;
  step_.duration_ns = clock_ns_ - step_start_ns_;
  step_.micro_steps = static_cast<uint16_t>(o_.micro_steps);
  step_.tokens = static_cast<double>(tokens() * o_.micro_steps);
  step_.profiler_ns = step_.duration_ns / 100;
  if (o_.on_card) put_on_card();
  step_.devices.push_back(std::move(device_));
  run_.steps.push_back(std::move(step_));
}

void Player::play() {
  sequence_ = o_.sequence;
  describe();
  for (int index = 0; index < o_.steps; ++index) play_step(index);
  run_.end.ended = "clean";
  run_.end.overhead_seconds = static_cast<double>(clock_ns_) * 1e-11;
  run_.end.bookkeeper_seconds = 2 * run_.end.overhead_seconds;
  run_.end.overhead_bytes = 3 << 20;
}

}  // namespace

recording::Run SyntheticRun::as_recorded() && {
  recording::Run run;
  run.path = "synthetic.tally";
  run.started = "2026-01-01T00:00:00Z";
  run.schema = 1;
  run.step_count = static_cast<int64_t>(steps.size());
  run.info = std::move(info);
  run.end = std::move(end);
  for (StepBooks& step : steps) run.steps.push_back({std::move(step), true});
  run.strings = std::move(strings);
  return run;
}

SyntheticRun make_synthetic_run(const SyntheticOptions& options) {
  SyntheticRun run;
  Player(options, run).play();
  return run;
}

void write_recording(const SyntheticRun& run, const std::string& path) {
  recording::Writer writer(path, *run.strings);
  writer.write_run(run.info);
  for (const StepBooks& step : run.steps) {
    RunEnd so_far = run.end;
    so_far.ended = "running";
    writer.write_step(step, so_far);
  }
  writer.finish(run.end);
  if (const std::string problem = writer.problem(); !problem.empty()) throw Error("{}", problem);
}

}  // namespace tally::test
