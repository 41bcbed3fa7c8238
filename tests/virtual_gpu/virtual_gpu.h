// SPDX-License-Identifier: Apache-2.0
// What the fake CUDA libraries of this folder share. All state lives in the fake libcudart
// (device.c); every other fake library links to it and asks it for devices, address ranges and
// handles. README.md says how a program comes to use them.
//
// Nothing of NVIDIA's is here: only prototypes and enums of the public headers are used, at build
// time. The prefix vgpu_ marks what is ours and not of CUDA.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VGPU_API __attribute__((visibility("default")))

// Every setting there is, each from the environment at the first CUDA call of the process. Sizes
// take KiB, MiB, GiB.
typedef struct vgpu_settings {
  const char*
      device;       // VIRTUAL_GPU_DEVICE: words of a model's name, "A100 40GB"; default "H100 80GB"
  uint64_t memory;  // VIRTUAL_GPU_MEMORY: bytes of a card; default: the model's
  int count;        // VIRTUAL_GPU_COUNT: cards; default 1, at most 16
  uint64_t context;  // VIRTUAL_GPU_CONTEXT: bytes that a CUDA context takes of each card; default 0
  int event_lag;     // VIRTUAL_GPU_EVENT_LAG: polls until an event is complete; default 0
  uint64_t
      cudnn_workspace;  // VIRTUAL_GPU_CUDNN_WORKSPACE: the answer where only cuDNN knows; default 0
  int byte_read_back;   // VIRTUAL_GPU_BOOL: what a one-byte copy to the host gives; default 0
  int keep_small_copies;  // VIRTUAL_GPU_KEEP: 1 keeps copies of up to 64 KiB to the card; default 0
  const char* log;        // VIRTUAL_GPU_LOG: a file, or "-" for stderr; default: none
  int log_launches;       // VIRTUAL_GPU_LOG_LAUNCHES: 1 logs each kernel launch; default 0
} vgpu_settings;
VGPU_API const vgpu_settings* vgpu_get_settings(void);

typedef struct vgpu_model {
  const char* name;             // what cudaGetDeviceProperties tells
  int major, minor;             // compute capability
  int sms;                      // streaming multiprocessors
  uint64_t total;               // bytes that cudaMemGetInfo calls total
  int smem_per_sm, smem_optin;  // bytes of shared memory
  int threads_per_sm;
  int l2_bytes, bus_bits;
} vgpu_model;
VGPU_API const vgpu_model* vgpu_get_model(void);
VGPU_API int vgpu_device_count(void);
// The current device of this thread; setting returns 0 or cudaErrorInvalidDevice.
VGPU_API int vgpu_current_device(void);
VGPU_API int vgpu_set_device(int device);

// ---- address space: reserved, never backed; host code that touches it stops with SIGSEGV
enum vgpu_kind { VGPU_NONE = 0, VGPU_DEVICE_MEM, VGPU_HOST_MEM, VGPU_RESERVED };
#define VGPU_GRANULE (UINT64_C(2) << 20)
VGPU_API void* vgpu_reserve(size_t bytes, size_t align, int device, int kind);
VGPU_API int vgpu_unreserve(void* base);  // 0, or 1 when nothing begins there
// Host memory that CUDA knows (pinned); `forget` returns 0, or 1 when it was not known.
VGPU_API void vgpu_remember_host(void* pointer, size_t bytes, int device);
VGPU_API int vgpu_forget_host(void* pointer);
// The vgpu_kind of the range around `pointer`; each output may be NULL.
VGPU_API int vgpu_find(const void* pointer, uintptr_t* base, size_t* size, int* device);

// ---- physical memory, counted only
VGPU_API int vgpu_charge(int device, int64_t bytes);  // 0, or 2 (out of memory)
VGPU_API void vgpu_mem_info(int device, size_t* free_bytes, size_t* total);
// A copy or a fill; the direction follows from the addresses. To the card: dropped. To the host:
// zeros. From host to host: real.
VGPU_API void vgpu_copy(void* to, const void* from, size_t bytes);
VGPU_API void vgpu_fill(void* to, int value, size_t bytes);

VGPU_API void* vgpu_new_handle(void);  // 64 zero bytes from malloc, so free() ends them
VGPU_API void vgpu_log(const char* format, ...) __attribute__((format(printf, 1, 2)));
// A question that only the real library can answer was asked; `question` is a literal. What it was
// answered is what-if, and whoever reports numbers of this rig reports these counts.
VGPU_API void vgpu_unknown(const char* question);
// A function that this rig does not know was called (generated stubs do nothing and succeed).
VGPU_API void vgpu_stub(const char* function);

// ---- for tests: reachable by link or dlsym on libcudart
VGPU_API uint64_t vgpu_launches(void);
VGPU_API void vgpu_count_launch(void);
VGPU_API void vgpu_set_event_lag(int polls);
VGPU_API int vgpu_event_lag(void);
VGPU_API void vgpu_complete_all_events(void);
VGPU_API uint64_t vgpu_event_epoch(void);      // grows with each vgpu_complete_all_events()
VGPU_API void vgpu_set_total(uint64_t bytes);  // memory of every card
VGPU_API uint64_t vgpu_used(int device);
VGPU_API uint64_t vgpu_peak_used(int device);
// Fill up to `most` names and counts; return how many there are.
VGPU_API size_t vgpu_unknown_questions(const char** names, uint64_t* counts, size_t most);
VGPU_API size_t vgpu_stubs_called(const char** names, uint64_t* counts, size_t most);
VGPU_API size_t vgpu_kernels_launched(const char** names, uint64_t* counts, size_t most);

#ifdef __cplusplus
}
#endif
