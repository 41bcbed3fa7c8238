// SPDX-License-Identifier: Apache-2.0
// How many FLOPs an operator does, from its name and its inputs alone. find_work_rule() is asked
// once for each distinct name; count_work() and WorkStack are called by the RecordFunction callback
// on every operator, on whatever thread runs it. Nothing here allocates (but for the first
// find_work_rule()), throws, takes a lock, or keeps a tensor.
#pragma once

#include <ATen/core/ivalue.h>

#include <cstdint>
#include <string_view>

namespace tally::hooks {

// What one call does. Doubles: exact up to 2^53 FLOPs an operator, and sums never overflow.
struct Work {
  double flops = 0;  // multiply-adds (2 each) of products: matmul, convolution, attention, RNN
  double torch_flops = 0;  // what torch.utils.flop_counter counts for this very call
  double elementwise = 0;  // everything else: element-wise, normalisation, softmax, sum, loss, pool
  double indices = 0;      // embedding: how many rows were looked up (tokens, in a language model)

  constexpr Work& operator+=(const Work& other) noexcept {
    flops += other.flops;
    torch_flops += other.torch_flops;
    elementwise += other.elementwise;
    indices += other.indices;
    return *this;
  }
  constexpr bool operator==(const Work&) const noexcept = default;
};

// The shape of a formula; work_rules.cpp says which inputs it reads.
enum class WorkKind : uint8_t {
  kNone,
  kMatmul,               // [m,k] x [k,n], one or both with a batch in front
  kMatrixVector,         // [m,k] x [k]
  kDot,                  // [n] . [n]
  kOuter,                // [m] x [n], added to a matrix
  kLinear,               // [...,k] x [n,k] transposed
  kConvolution,          // all layouts of arguments, transposed ones too
  kConvolutionBackward,  // of input, weight and bias, as the output mask asks
  kAttention,            // softmax(q k') v
  kAttentionBackward,    // five products: the scores are computed again
  kRecurrent,            // one or more layers of LSTM, GRU or RNN over a sequence, and backward
  kFactorization,        // dense linear algebra: leading terms
  kPointwise,            // elements of the broadcast inputs
  kReduce,               // elements of one input
  kPool,                 // elements of the result x window
  kUpsample,             // elements of the result
  kList,                 // elements of a list of tensors: _foreach_* and _fused_*
  kIndices,              // embedding
};

// A small value, found once for each operator name and kept by the caller.
struct WorkRule {
  static constexpr uint8_t kProducts = 1;     // has `flops`
  static constexpr uint8_t kRegistry = 2;     // is in the registry of torch.utils.flop_counter
  static constexpr uint8_t kElementwise = 4;  // has `elementwise`
  static constexpr uint8_t kIndexing = 8;     // has `indices`
  // Has a kernel of its own, so a dispatch mode (flop_counter is one) sees the operator but nothing
  // that runs inside it. Operators without it are compositions: their parts are dispatched in turn.
  static constexpr uint8_t kLeaf = 16;
  static constexpr uint8_t kView = 32;  // a leaf that makes another view of its input, or none
  // A leaf whose autograd kernel makes the node: what runs inside it makes none.
  static constexpr uint8_t kAutograd = 64;
  static constexpr uint8_t kCounted = kProducts | kRegistry | kElementwise | kIndexing;

  WorkKind kind = WorkKind::kNone;
  uint8_t flags = 0;
  uint8_t argument = 0;   // first input that the formula reads
  uint8_t variant = 0;    // of the kind: layout, algorithm, backward
  float per_element = 0;  // element-wise FLOPs an element

  // True: count_work() may give something other than zeros.
  constexpr bool counts() const noexcept { return (flags & kCounted) != 0; }
  // True: of the operators inside such a kernel none counts; inside a view's, if its input is
  // dense.
  constexpr bool is_whole() const noexcept {
    return (flags & kView) ||
           ((flags & kLeaf) && (kind == WorkKind::kPointwise || kind == WorkKind::kList));
  }
};

// The rule of an operator by RecordFunction's name ("aten::addmm"; overloads share it). Names that
// are not operators (autograd nodes, user scopes) give none(). The first call reads the
// dispatcher's list of operators (a few milliseconds, 300 KiB kept): make it before the callback is
// installed.
WorkRule find_work_rule(std::string_view operator_name) noexcept;

// How an operator is built, as the dispatcher knows it. kUnknown: not an operator. Composite: has
// no kernel of its own for autograd or a backend; it is a sequence of other operators.
enum class OperatorForm : uint8_t { kUnknown, kLeaf, kComposite };
OperatorForm operator_form(std::string_view operator_name) noexcept;

// What this call does by itself, whatever encloses it. Undefined and nested tensors and symbolic
// sizes give zeros, sparse ones too but for torch_flops.
Work count_work(const WorkRule& rule, c10::ArrayRef<const c10::IValue> inputs) noexcept;

// The nesting rule; one a thread, zero-initialised. RecordFunction shows an operator and the
// operators it is made of (conv2d > convolution > _convolution > ...); each kind of work is counted
// at the outermost operator that has a formula for it:
//  - flops: not inside an operator that has `flops` (so inside _cdist_forward the mm counts);
//  - elementwise: not inside any operator that has `elementwise` or `flops` (the parts of attention
//    or of a normalisation are in the formula of the whole);
//  - torch_flops: not inside a leaf (see kLeaf): exactly what a dispatch mode sees;
//  - indices: as elementwise.
// Rules stand on operators with kernels only, never on compositions: softmax, layer_norm,
// cross_entropy_loss and linear have none; _softmax, native_layer_norm, nll_loss_forward and addmm
// count, wherever they were called from. (One has both: _fused_rms_norm, a kernel on CUDA and a
// composition on a CPU, counts the same on both.)
struct WorkStack {
  uint32_t products = 0;  // open operators with kProducts
  uint32_t any = 0;       // open operators with kProducts, kElementwise or kIndexing
  uint32_t leaves = 0;    // open operators with kLeaf

  // True: for what encloses it, the operator neither counts nor matters to what is nested in it;
  // enter() and exit() may both be skipped.
  bool hides(const WorkRule& rule) const noexcept {
    const bool is_counted =
        rule.counts() && (any == 0 || (products == 0 && (rule.flags & WorkRule::kProducts)) ||
                          (leaves == 0 && (rule.flags & WorkRule::kRegistry)));
    return !is_counted && (leaves != 0 || !(rule.flags & WorkRule::kLeaf));
  }

  // True: hides(rule) of every rule.
  bool hides_all() const noexcept { return products != 0 && leaves != 0; }

  // At an operator's start. Call exit() with the same rule at its end, also after an exception.
  Work enter(const WorkRule& rule, c10::ArrayRef<const c10::IValue> inputs) noexcept {
    Work work;
    if (rule.counts()) {
      const bool visible = (any == 0) || (products == 0 && (rule.flags & WorkRule::kProducts)) ||
                           (leaves == 0 && (rule.flags & WorkRule::kRegistry));
      if (visible) {
        work = count_work(rule, inputs);
        if (products != 0) work.flops = 0;
        if (leaves != 0) work.torch_flops = 0;
        if (any != 0) work.elementwise = work.indices = 0;
      }
      ++any;
      products += (rule.flags & WorkRule::kProducts) != 0;
    }
    leaves += (rule.flags & WorkRule::kLeaf) != 0;
    return work;
  }
  void exit(const WorkRule& rule) noexcept {
    any -= rule.counts();
    products -= (rule.flags & WorkRule::kProducts) != 0;
    leaves -= (rule.flags & WorkRule::kLeaf) != 0;
  }
};

}  // namespace tally::hooks
