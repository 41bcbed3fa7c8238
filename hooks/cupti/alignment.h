// SPDX-License-Identifier: Apache-2.0
// What an operator's inputs tell of why kernels execute more or less than its formula says.
#pragma once

#include <ATen/record_function.h>

#include <cstdint>

namespace tally::hooks::cupti {

// The largest power of two that divides every size of the matrices that the operator multiplies;
// 0 where its inputs are none.
uint32_t alignment_of(const at::RecordFunction& function) noexcept;

// It was asked to leave out what a causal mask hides.
bool is_causal(const at::RecordFunction& function) noexcept;

}  // namespace tally::hooks::cupti
