// SPDX-License-Identifier: Apache-2.0
// The part of the driver (libcuda.so.1) that PyTorch and Triton ask for by name: virtual memory
// management for expandable segments, contexts, modules, a few queries.
#define _GNU_SOURCE
#include <cuda.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "virtual_gpu.h"

VGPU_API CUresult cuInit(unsigned f) { return 0; }
VGPU_API CUresult cuDriverGetVersion(int* v) {
  *v = 13000;
  return 0;
}
VGPU_API CUresult cuDeviceGetCount(int* n) {
  *n = vgpu_device_count();
  return 0;
}
VGPU_API CUresult cuDeviceGet(CUdevice* d, int i) {
  if (i < 0 || i >= vgpu_device_count()) return CUDA_ERROR_INVALID_DEVICE;
  *d = i;
  return 0;
}
VGPU_API CUresult cuDeviceGetName(char* s, int n, CUdevice d) {
  strncpy(s, vgpu_get_model()->name, n);
  return 0;
}
VGPU_API CUresult cuDeviceTotalMem_v2(size_t* b, CUdevice d) {
  *b = vgpu_get_model()->total;
  return 0;
}
VGPU_API CUresult cuDeviceGetAttribute(int* v, CUdevice_attribute a, CUdevice d) {
  const vgpu_model* m = vgpu_get_model();
  switch (a) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *v = m->major;
      break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *v = m->minor;
      break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *v = m->sms;
      break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
      *v = 32;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *v = 1024;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
      *v = 49152;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      *v = m->smem_optin;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
      *v = m->smem_per_sm;
      break;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
      *v = 65536;
      break;
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
      *v = 1;
      break;
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
      *v = 1;
      break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
      *v = 1;
      break;
    default:
      vgpu_log("cuDeviceGetAttribute %d -> 0", (int)a);
      *v = 0;  // fabric handles, RDMA, multicast: no
  }
  return 0;
}
VGPU_API CUresult cuDevicePrimaryCtxGetState(CUdevice d, unsigned* f, int* active) {
  if (f) *f = 0;
  *active = 1;
  return 0;
}
VGPU_API CUresult cuDevicePrimaryCtxRetain(CUcontext* c, CUdevice d) {
  *c = (CUcontext)(uintptr_t)(0x1000 + d);
  return 0;
}
VGPU_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d) { return 0; }
VGPU_API CUresult cuCtxGetCurrent(CUcontext* c) {
  *c = (CUcontext)(uintptr_t)(0x1000 + vgpu_current_device());
  return 0;
}
VGPU_API CUresult cuCtxSetCurrent(CUcontext c) { return 0; }
VGPU_API CUresult cuCtxGetDevice(CUdevice* d) {
  *d = vgpu_current_device();
  return 0;
}
VGPU_API CUresult cuCtxSynchronize(void) {
  vgpu_complete_all_events();
  return 0;
}
VGPU_API CUresult cuGetErrorString(CUresult e, const char** s) {
  *s = e == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : e ? "driver error" : "no error";
  return 0;
}
VGPU_API CUresult cuGetErrorName(CUresult e, const char** s) {
  *s = e == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
       : e                           ? "CUDA_ERROR"
                                     : "CUDA_SUCCESS";
  return 0;
}
VGPU_API CUresult cuPointerGetAttribute(void* v, CUpointer_attribute a, CUdeviceptr p) {
  int dev = 0, k = vgpu_find((void*)p, 0, 0, &dev);
  switch (a) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
      if (k == VGPU_NONE) return CUDA_ERROR_INVALID_VALUE;
      *(unsigned*)v = k == VGPU_HOST_MEM ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
      return 0;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
      *(int*)v = dev;
      return 0;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
      *(CUdeviceptr*)v = p;
      return 0;
    case CU_POINTER_ATTRIBUTE_CONTEXT:
      *(CUcontext*)v = (CUcontext)(uintptr_t)(0x1000 + dev);
      return 0;
    default:
      vgpu_log("cuPointerGetAttribute %d", (int)a);
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}
// ---- virtual memory: physical handles are counters, mappings are a list
typedef struct phys {
  size_t size;
  int device, refs;
} phys;
typedef struct map {
  uintptr_t at;
  size_t size;
  phys* p;
  struct map* next;
} map;
static map* maps;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void drop(phys* p) {
  if (--p->refs == 0) {
    vgpu_charge(p->device, -(int64_t)p->size);
    free(p);
  }
}
VGPU_API CUresult cuMemGetAllocationGranularity(size_t* g, const CUmemAllocationProp* p,
                                                CUmemAllocationGranularity_flags f) {
  *g = VGPU_GRANULE;
  return 0;
}
VGPU_API CUresult cuMemAddressReserve(CUdeviceptr* p, size_t n, size_t align, CUdeviceptr hint,
                                      unsigned long long f) {
  void* a = vgpu_reserve(n, align, vgpu_current_device(), VGPU_RESERVED);
  *p = (CUdeviceptr)a;
  return a ? 0 : CUDA_ERROR_OUT_OF_MEMORY;
}
VGPU_API CUresult cuMemAddressFree(CUdeviceptr p, size_t n) {
  return vgpu_unreserve((void*)p) ? CUDA_ERROR_INVALID_VALUE : 0;
}
VGPU_API CUresult cuMemCreate(CUmemGenericAllocationHandle* h, size_t n,
                              const CUmemAllocationProp* prop, unsigned long long f) {
  if (n % VGPU_GRANULE) return CUDA_ERROR_INVALID_VALUE;
  int host = prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE;
  if (vgpu_charge(host ? 0 : prop->location.id, host ? 0 : n)) return CUDA_ERROR_OUT_OF_MEMORY;
  phys* p = calloc(1, sizeof *p);
  p->size = host ? 0 : n;
  p->device = host ? 0 : prop->location.id;
  p->refs = 1;
  *h = (CUmemGenericAllocationHandle)(uintptr_t)p;
  return 0;
}
VGPU_API CUresult cuMemRelease(CUmemGenericAllocationHandle h) {
  pthread_mutex_lock(&mutex);
  drop((phys*)(uintptr_t)h);
  pthread_mutex_unlock(&mutex);
  return 0;
}
VGPU_API CUresult cuMemMap(CUdeviceptr at, size_t n, size_t off, CUmemGenericAllocationHandle h,
                           unsigned long long f) {
  map* m = calloc(1, sizeof *m);
  pthread_mutex_lock(&mutex);
  *m = (map){at, n, (phys*)(uintptr_t)h, maps};
  m->p->refs++;
  maps = m;
  pthread_mutex_unlock(&mutex);
  return 0;
}
VGPU_API CUresult cuMemUnmap(CUdeviceptr at, size_t n) {
  pthread_mutex_lock(&mutex);
  for (map** q = &maps; *q;) {
    map* m = *q;
    if (m->at >= at && m->at + m->size <= at + n) {
      *q = m->next;
      drop(m->p);
      free(m);
    } else
      q = &m->next;
  }
  pthread_mutex_unlock(&mutex);
  return 0;
}
VGPU_API CUresult cuMemSetAccess(CUdeviceptr p, size_t n, const CUmemAccessDesc* d, size_t c) {
  return 0;
}
VGPU_API CUresult cuMemExportToShareableHandle(void* s, CUmemGenericAllocationHandle h,
                                               CUmemAllocationHandleType t, unsigned long long f) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
VGPU_API CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle* h, void* s,
                                                 CUmemAllocationHandleType t) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
VGPU_API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle* h, void* a) {
  CUresult r = CUDA_ERROR_INVALID_VALUE;
  pthread_mutex_lock(&mutex);
  for (map* m = maps; m; m = m->next)
    if ((uintptr_t)a >= m->at && (uintptr_t)a < m->at + m->size) {
      m->p->refs++;
      *h = (CUmemGenericAllocationHandle)(uintptr_t)m->p;
      r = 0;
      break;
    }
  pthread_mutex_unlock(&mutex);
  return r;
}
VGPU_API CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* p,
                                                         CUmemGenericAllocationHandle h) {
  memset(p, 0, sizeof *p);
  p->type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p->location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  p->location.id = ((phys*)(uintptr_t)h)->device;
  return 0;
}
VGPU_API CUresult cuMemsetD32Async(CUdeviceptr p, unsigned v, size_t n, CUstream s) { return 0; }
VGPU_API CUresult cuStreamWriteValue32(CUstream s, CUdeviceptr p, cuuint32_t v, unsigned f) {
  return 0;
}
VGPU_API CUresult cuMemGetInfo_v2(size_t* f, size_t* t) {
  vgpu_mem_info(vgpu_current_device(), f, t);
  return 0;
}
// ---- modules and launches: load anything, run nothing
VGPU_API CUresult cuModuleLoad(CUmodule* m, const char* p) {
  *m = vgpu_new_handle();
  return 0;
}
VGPU_API CUresult cuModuleLoadData(CUmodule* m, const void* p) {
  *m = vgpu_new_handle();
  return 0;
}
VGPU_API CUresult cuModuleLoadDataEx(CUmodule* m, const void* p, unsigned n, CUjit_option* o,
                                     void** v) {
  *m = vgpu_new_handle();
  return 0;
}
VGPU_API CUresult cuModuleUnload(CUmodule m) { return 0; }
VGPU_API CUresult cuModuleGetFunction(CUfunction* f, CUmodule m, const char* n) {
  *f = vgpu_new_handle();
  return 0;
}
VGPU_API CUresult cuFuncSetAttribute(CUfunction f, CUfunction_attribute a, int v) { return 0; }
VGPU_API CUresult cuFuncGetAttribute(int* v, CUfunction_attribute a, CUfunction f) {
  *v = a == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024
       : a == CU_FUNC_ATTRIBUTE_NUM_REGS            ? 32
                                                    : 0;
  return 0;
}
// Triton's launcher and helper module
VGPU_API CUresult cuLaunchKernelEx(const CUlaunchConfig* c, CUfunction f, void** p, void** x) {
  return 0;
}
VGPU_API CUresult cuCtxSetLimit(CUlimit l, size_t v) { return 0; }
VGPU_API CUresult cuCtxGetLimit(size_t* v, CUlimit l) {
  *v = 0;
  return 0;
}
VGPU_API CUresult cuOccupancyMaxActiveClusters(int* n, CUfunction f, const CUlaunchConfig* c) {
  *n = 1;
  return 0;
}
VGPU_API CUresult cuFuncSetCacheConfig(CUfunction f, CUfunc_cache c) { return 0; }
VGPU_API CUresult cuLaunchKernel(CUfunction f, unsigned a, unsigned b, unsigned c, unsigned d,
                                 unsigned e, unsigned g, unsigned sm, CUstream s, void** p,
                                 void** x) {
  return 0;
}
VGPU_API CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned a, unsigned b, unsigned c,
                                            unsigned d, unsigned e, unsigned g, unsigned sm,
                                            CUstream s, void** p) {
  return 0;
}
VGPU_API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction f, int b,
                                                              size_t sm) {
  *n = 1;
  return 0;
}
VGPU_API CUresult cuTensorMapEncodeTiled(CUtensorMap* m, CUtensorMapDataType t, cuuint32_t r,
                                         void* g, const cuuint64_t* d, const cuuint64_t* s,
                                         const cuuint32_t* b, const cuuint32_t* e,
                                         CUtensorMapInterleave i, CUtensorMapSwizzle w,
                                         CUtensorMapL2promotion l, CUtensorMapFloatOOBfill o) {
  memset(m, 0, sizeof *m);
  return 0;
}
VGPU_API CUresult cuLinkCreate_v2(unsigned n, CUjit_option* o, void** v, CUlinkState* s) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
VGPU_API CUresult cuLinkAddData_v2(CUlinkState s, CUjitInputType t, void* d, size_t n,
                                   const char* nm, unsigned c, CUjit_option* o, void** v) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
VGPU_API CUresult cuLinkComplete(CUlinkState s, void** c, size_t* n) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
