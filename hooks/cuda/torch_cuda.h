// SPDX-License-Identifier: Apache-2.0
// The way to LibTorch's CUDA half without linking it: found when the program has loaded it, called
// through its exported objects. What depends on the version of LibTorch beyond the header of the
// allocator is here. Tried with 2.11.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <cstdint>
#include <string>
#include <vector>

#include "profiler/core/run_info.h"

namespace tally::hooks::cuda {

using c10::CachingDeviceAllocator::DeviceStats;
using c10::CachingDeviceAllocator::TraceEntry;
using Allocator = c10::cuda::CUDACachingAllocator::CUDAAllocator;

// The allocator that LibTorch uses on CUDA devices, or null: libc10_cuda is not loaded.
Allocator* find_allocator() noexcept;

// "", or the sentence that says why no program on this machine can use a CUDA device. Asks nothing
// that would initialise CUDA: a program that forks could no longer use it in its children.
std::string why_no_device();

// Names and sizes of the devices that the process sees. Only once the program has initialised CUDA.
std::vector<DeviceInfo> list_devices();

// Lists them after the CPU, once: the k-th is device k + 1 of the recording.
void register_devices(RunInfo& info);

// The device that this thread uses. Only once the program has initialised CUDA.
int current_device();

// Start of each block that cuBLAS and cuBLASLt work in, one a handle and stream: LibTorch keeps the
// list. Appends to `pointers`; nothing when another thread changes the list right now.
void list_workspaces(std::vector<uint64_t>& pointers);

}  // namespace tally::hooks::cuda
