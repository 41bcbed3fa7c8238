// SPDX-License-Identifier: Apache-2.0
// The words of the product: roles, phases, marks and formats of FLOPs, with their keys in every output (fixed; see
// docs/roles.md) and their titles. One table each; nothing else spells these names.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "profiler/core/flop_format.h"

namespace tally {

// What a block is for. The order is the order of a stack of bytes, from the bottom.
enum class Role : uint8_t {
  kParameter,
  kBuffer,
  kOptimizerState,
  kGradient,
  kActivation,
  kRecomputedActivation,
  kInput,
  kHeldOutput,
  kTemporaryForward,
  kTemporaryBackward,
  kTemporaryOptimizer,
  kWorkspace,
  kCommunication,
  kExternal,
  kUnattributed,
  // Beside the blocks, only where a caching allocator has them.
  kRounding,
  kCached,
  kOutsideAllocator,
};
inline constexpr size_t kRoleCount = 18;

enum class Phase : uint8_t { kData, kForward, kBackward, kRecompute, kOptimizer, kOther };
inline constexpr size_t kPhaseCount = 6;

enum class Mark : uint8_t { kStart, kForwardEdge, kBackwardEnd, kPeak, kEnd, kOom };
inline constexpr size_t kMarkCount = 6;

struct Word {
  std::string_view key;      // in JSON, the recording and the documents
  std::string_view title;    // for people
  std::string_view meaning;  // one sentence
};

inline constexpr std::array<Word, kRoleCount> kRoleWords{{
    {"parameter", "parameters", "A parameter of a watched module, or a leaf that autograd accumulates into."},
    {"buffer", "buffers", "A registered buffer of a watched module, such as a running mean."},
    {"optimizer_state", "optimizer state", "What the optimizer keeps from step to step: momenta, variances."},
    {"gradient", "gradients", "Held by the .grad of a parameter."},
    {"activation", "activations", "Kept by autograd for the backward pass: found in the graph itself."},
    {"recomputed_activation", "recomputed activations", "Kept by autograd, but made again inside a backward pass (checkpointing)."},
    {"input", "inputs", "Data that the step reads: alive before its forward pass began."},
    {"held_output", "held outputs", "Made in the forward pass and kept by the program, not by autograd."},
    {"temporary_forward", "temporaries, forward", "Made and dropped in the forward pass; autograd did not keep it."},
    {"temporary_backward", "temporaries, backward", "Gradients on their way through the graph, and what backward operators need."},
    {"temporary_optimizer", "temporaries, optimizer", "Made and dropped while the optimizer updated the parameters."},
    {"workspace", "workspaces", "Scratch memory of cuBLAS or cuDNN."},
    {"communication", "communication", "Gradient buckets of DDP, gathered parameters of FSDP."},
    {"external", "external", "Alive before recording began; nothing told what it is."},
    {"unattributed", "unattributed", "No evidence names it."},
    {"rounding", "rounding", "What the caching allocator adds to each request."},
    {"cached", "cached", "Reserved by the caching allocator, not in use."},
    {"outside_allocator", "outside the allocator", "In use on the device, not through PyTorch's allocator."},
}};
inline constexpr std::array<Word, kPhaseCount> kPhaseWords{{
    {"data", "data", "Before the forward pass: loading and preparing the batch."},
    {"forward", "forward", "From the first operator on a parameter to the start of the backward pass."},
    {"backward", "backward", "Inside a backward pass."},
    {"recompute", "recompute", "Forward operators run again inside a backward pass."},
    {"optimizer", "optimizer", "The update of the parameters."},
    {"other", "other", "Everything else, such as work between steps."},
}};
inline constexpr std::array<Word, kMarkCount> kMarkWords{{
    {"start", "start", "The step began."},
    {"forward_edge", "forward edge", "A backward pass begins: every activation of it is alive."},
    {"backward_end", "backward end", "A backward pass ended."},
    {"peak", "peak", "The most bytes alive in the step."},
    {"end", "end", "The step ended."},
    {"oom", "out of memory", "An allocation failed or crossed the budget."},
}};
inline constexpr std::array<Word, kFlopFormatCount> kFlopFormatWords{{
    {"tensor_bf16", "tensor bf16", "Products of bf16 on tensor cores."},
    {"tensor_fp16", "tensor fp16", "Products of fp16 on tensor cores."},
    {"tensor_tf32", "tensor tf32", "Products of tf32 on tensor cores: fp32 that is rounded first."},
    {"tensor_fp8", "tensor fp8", "Products of fp8 on tensor cores; where a chip has one counter for both, of fp6 and fp4 too."},
    {"tensor_fp4", "tensor fp4", "Products of fp4 on tensor cores; where a chip has one counter for both, of fp6 too."},
    {"tensor_fp64", "tensor fp64", "Products of fp64 on tensor cores."},
    {"scalar_fp32", "scalar fp32", "Scalar instructions on fp32."},
    {"scalar_fp64", "scalar fp64", "Scalar instructions on fp64."},
    {"scalar_fp16", "scalar fp16", "Scalar instructions on fp16, two at a time."},
}};

constexpr std::string_view key(Role role) { return kRoleWords[static_cast<size_t>(role)].key; }
constexpr std::string_view key(Phase phase) { return kPhaseWords[static_cast<size_t>(phase)].key; }
constexpr std::string_view key(Mark mark) { return kMarkWords[static_cast<size_t>(mark)].key; }
constexpr std::string_view key(FlopFormat format) { return kFlopFormatWords[static_cast<size_t>(format)].key; }
constexpr std::string_view title(Role role) { return kRoleWords[static_cast<size_t>(role)].title; }
constexpr std::string_view title(Phase phase) { return kPhaseWords[static_cast<size_t>(phase)].title; }
constexpr std::string_view title(Mark mark) { return kMarkWords[static_cast<size_t>(mark)].title; }
constexpr std::string_view title(FlopFormat format) { return kFlopFormatWords[static_cast<size_t>(format)].title; }

// The value behind a key, or nothing for a word we do not know.
template <typename E, size_t N>
constexpr std::optional<E> find_word(const std::array<Word, N>& words, std::string_view key) {
  for (size_t i = 0; i < N; ++i) {
    if (words[i].key == key) return static_cast<E>(i);
  }
  return std::nullopt;
}
constexpr std::optional<Role> role_of(std::string_view key) { return find_word<Role>(kRoleWords, key); }
constexpr std::optional<Phase> phase_of(std::string_view key) { return find_word<Phase>(kPhaseWords, key); }
constexpr std::optional<Mark> mark_of(std::string_view key) { return find_word<Mark>(kMarkWords, key); }
constexpr std::optional<FlopFormat> flop_format_of(std::string_view key) {
  return find_word<FlopFormat>(kFlopFormatWords, key);
}

// Bytes by role; what every mark and every point of a timeline holds.
using RoleBytes = std::array<int64_t, kRoleCount>;
constexpr int64_t sum(const RoleBytes& roles) {
  int64_t total = 0;
  for (const int64_t bytes : roles) total += bytes;
  return total;
}

}  // namespace tally
