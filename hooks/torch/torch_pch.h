// SPDX-License-Identifier: Apache-2.0
// LibTorch's headers, precompiled once for every target that uses them (half a minute and 700 MB
// of parsing otherwise paid by each file).
#pragma once

#ifndef NDEBUG
#error "LibTorch must be used with -DNDEBUG: at::RecordFunction has another layout without it"
#endif

#include <ATen/record_function.h>
#include <c10/core/CPUAllocator.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/tensor.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/torch.h>
