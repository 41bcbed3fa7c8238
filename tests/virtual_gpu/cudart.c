// SPDX-License-Identifier: Apache-2.0
// A CUDA runtime (libcudart.so.13) without a GPU: memory is reserved address space, kernels do not
// run, copies to the host give zeros, work is complete when it is submitted (or after some polls of
// its event). Long because one library is one file.
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "virtual_gpu.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;  // of the kernel table and symbols
static __thread cudaError_t error_of_thread;
static cudaError_t ret(cudaError_t e) {
  if (e) error_of_thread = e;
  return e;
}

// ---- memory
static cudaError_t dev_malloc(void** p, size_t n) {
  if (!p) return ret(cudaErrorInvalidValue);
  if (!n) {
    *p = NULL;
    return 0;
  }
  const size_t len = (n + VGPU_GRANULE - 1) & ~(VGPU_GRANULE - 1);
  if (vgpu_charge(vgpu_current_device(), len)) {
    vgpu_log("cudaMalloc %zu: out of memory, used %zu", n,
             (size_t)vgpu_used(vgpu_current_device()));
    return ret(cudaErrorMemoryAllocation);
  }
  void* a = vgpu_reserve(n, 0, vgpu_current_device(), VGPU_DEVICE_MEM);
  if (!a) {
    vgpu_charge(vgpu_current_device(), -(int64_t)len);
    return ret(cudaErrorMemoryAllocation);
  }
  *p = a;
  return 0;
}
static cudaError_t dev_free(void* p) {
  if (!p) return 0;
  uintptr_t b;
  size_t n;
  int d;
  if (vgpu_find(p, &b, &n, &d) != VGPU_DEVICE_MEM || b != (uintptr_t)p)
    return ret(cudaErrorInvalidValue);
  vgpu_unreserve(p);
  vgpu_charge(d, -(int64_t)n);
  return 0;
}
VGPU_API cudaError_t cudaMalloc(void** p, size_t n) { return dev_malloc(p, n); }
VGPU_API cudaError_t cudaFree(void* p) { return dev_free(p); }
VGPU_API cudaError_t cudaMallocAsync(void** p, size_t n, cudaStream_t s) {
  return dev_malloc(p, n);
}
VGPU_API cudaError_t cudaFreeAsync(void* p, cudaStream_t s) { return dev_free(p); }
VGPU_API cudaError_t cudaMemGetInfo(size_t* f, size_t* t) {
  vgpu_mem_info(vgpu_current_device(), f, t);
  return 0;
}
VGPU_API cudaError_t cudaHostAlloc(void** p, size_t n, unsigned flags) {
  if (posix_memalign(p, 4096, n ? n : 1)) return ret(cudaErrorMemoryAllocation);
  vgpu_remember_host(*p, n, vgpu_current_device());
  return 0;
}
VGPU_API cudaError_t cudaMallocHost(void** p, size_t n) { return cudaHostAlloc(p, n, 0); }
VGPU_API cudaError_t cudaHostRegister(void* p, size_t n, unsigned flags) {
  vgpu_remember_host(p, n, vgpu_current_device());
  return 0;
}
static cudaError_t host_forget(void* p) {
  return vgpu_forget_host(p) ? ret(cudaErrorInvalidValue) : cudaSuccess;
}
VGPU_API cudaError_t cudaHostUnregister(void* p) { return host_forget(p); }
VGPU_API cudaError_t cudaFreeHost(void* p) {
  if (!p) return 0;
  cudaError_t e = host_forget(p);
  if (!e) free(p);
  return e;
}
VGPU_API cudaError_t cudaHostGetDevicePointer(void** d, void* h, unsigned f) {
  *d = h;
  return 0;
}
VGPU_API cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes* a, const void* p) {
  int dev = -2, k = vgpu_find(p, 0, 0, &dev);
  memset(a, 0, sizeof *a);
  a->device = dev;
  if (k == VGPU_DEVICE_MEM || k == VGPU_RESERVED) {
    a->type = cudaMemoryTypeDevice;
    a->devicePointer = (void*)p;
  } else if (k == VGPU_HOST_MEM) {
    a->type = cudaMemoryTypeHost;
    a->devicePointer = a->hostPointer = (void*)p;
  } else {
    a->type = cudaMemoryTypeUnregistered;
    a->hostPointer = (void*)p;
  }
  return 0;
}
// memory pools (backend:cudaMallocAsync)
#define MOST_DEVICES 16
static int pool_of_device[MOST_DEVICES];
VGPU_API cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* p, int d) {
  *p = (cudaMemPool_t)&pool_of_device[d];
  return 0;
}
VGPU_API cudaError_t cudaMemPoolSetAccess(cudaMemPool_t p, const struct cudaMemAccessDesc* d,
                                          size_t n) {
  return 0;
}
VGPU_API cudaError_t cudaMemPoolTrimTo(cudaMemPool_t p, size_t n) { return 0; }
VGPU_API cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t p, enum cudaMemPoolAttr a, void* v) {
  return 0;
}
VGPU_API cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t p, enum cudaMemPoolAttr a, void* v) {
  int d = (int)((int*)p - pool_of_device);
  uint64_t r = 0;
  if (a == cudaMemPoolAttrReservedMemCurrent || a == cudaMemPoolAttrUsedMemCurrent)
    r = vgpu_used(d);
  if (a == cudaMemPoolAttrReservedMemHigh || a == cudaMemPoolAttrUsedMemHigh) r = vgpu_peak_used(d);
  if (a == cudaMemPoolReuseFollowEventDependencies || a == cudaMemPoolReuseAllowOpportunistic ||
      a == cudaMemPoolReuseAllowInternalDependencies)
    *(int*)v = 1;
  else
    *(uint64_t*)v = r;
  return 0;
}
// ---- copies and fills
VGPU_API cudaError_t cudaMemcpy(void* d, const void* s, size_t n, enum cudaMemcpyKind k) {
  vgpu_copy(d, s, n);
  return cudaSuccess;
}
VGPU_API cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, enum cudaMemcpyKind k,
                                     cudaStream_t st) {
  vgpu_copy(d, s, n);
  return cudaSuccess;
}
VGPU_API cudaError_t cudaMemcpyPeerAsync(void* d, int dd, const void* s, int sd, size_t n,
                                         cudaStream_t st) {
  vgpu_copy(d, s, n);
  return cudaSuccess;
}
VGPU_API cudaError_t cudaMemcpy2DAsync(void* d, size_t dp, const void* s, size_t sp, size_t w,
                                       size_t h, enum cudaMemcpyKind k, cudaStream_t st) {
  for (size_t i = 0; i < h; i++) vgpu_copy((char*)d + i * dp, (const char*)s + i * sp, w);
  return 0;
}
VGPU_API cudaError_t cudaMemcpy2D(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h,
                                  enum cudaMemcpyKind k) {
  return cudaMemcpy2DAsync(d, dp, s, sp, w, h, k, 0);
}
VGPU_API cudaError_t cudaMemset(void* p, int v, size_t n) {
  vgpu_fill(p, v, n);
  return cudaSuccess;
}
VGPU_API cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t s) {
  vgpu_fill(p, v, n);
  return cudaSuccess;
}
VGPU_API cudaError_t cudaMemcpyToSymbol(const void* sym, const void* s, size_t n, size_t o,
                                        enum cudaMemcpyKind k) {
  return 0;
}
VGPU_API cudaError_t cudaMemcpyToSymbolAsync(const void* sym, const void* s, size_t n, size_t o,
                                             enum cudaMemcpyKind k, cudaStream_t st) {
  return 0;
}
VGPU_API cudaError_t cudaMemcpyFromSymbol(void* d, const void* sym, size_t n, size_t o,
                                          enum cudaMemcpyKind k) {
  memset(d, 0, n);
  return 0;
}
VGPU_API cudaError_t cudaGetSymbolAddress(void** p, const void* sym) {
  static char* symbols;
  static size_t at;
  pthread_mutex_lock(&mutex);
  if (!symbols) symbols = vgpu_reserve(64u << 20, 0, vgpu_current_device(), VGPU_RESERVED);
  *p = symbols + at;
  at += 4096;
  pthread_mutex_unlock(&mutex);
  return 0;
}
// ---- devices
VGPU_API cudaError_t cudaGetDeviceCount(int* n) {
  *n = vgpu_device_count();
  return vgpu_device_count() ? 0 : ret(cudaErrorNoDevice);
}
VGPU_API cudaError_t cudaGetDevice(int* d) {
  *d = vgpu_current_device();
  return 0;
}
VGPU_API cudaError_t cudaSetDevice(int d) { return ret(vgpu_set_device(d)); }
VGPU_API cudaError_t cudaDeviceSynchronize(void) {
  vgpu_complete_all_events();
  return 0;
}
VGPU_API cudaError_t cudaDriverGetVersion(int* v) {
  *v = 13000;
  return 0;
}
VGPU_API cudaError_t cudaRuntimeGetVersion(int* v) {
  *v = 13000;
  return 0;
}
VGPU_API cudaError_t cudaDeviceReset(void) { return 0; }
VGPU_API cudaError_t cudaDeviceGetPCIBusId(char* s, int n, int d) {
  snprintf(s, n, "0000:%02X:00.0", d + 1);
  return 0;
}
VGPU_API cudaError_t cudaDeviceGetStreamPriorityRange(int* lo, int* hi) {
  if (lo) *lo = 0;
  if (hi) *hi = -5;
  return 0;
}
VGPU_API cudaError_t cudaDeviceCanAccessPeer(int* can, int a, int b) {
  *can = a != b;
  return 0;
}
VGPU_API cudaError_t cudaDeviceEnablePeerAccess(int d, unsigned f) { return 0; }
VGPU_API cudaError_t cudaDeviceGetLimit(size_t* v, enum cudaLimit l) {
  *v = 0;
  return 0;
}
VGPU_API cudaError_t cudaDeviceSetLimit(enum cudaLimit l, size_t v) { return 0; }
VGPU_API cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* p, int d) {
  if (d < 0 || d >= vgpu_device_count()) return ret(cudaErrorInvalidDevice);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "%s", vgpu_get_model()->name);
  memcpy(p->uuid.bytes, "virtual-gpu-0000", 16);
  p->uuid.bytes[15] += d;
  p->totalGlobalMem = vgpu_get_model()->total;
  p->sharedMemPerBlock = 49152;
  p->regsPerBlock = 65536;
  p->warpSize = 32;
  p->memPitch = 2147483647;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->totalConstMem = 65536;
  p->major = vgpu_get_model()->major;
  p->minor = vgpu_get_model()->minor;
  p->textureAlignment = 512;
  p->texturePitchAlignment = 32;
  p->multiProcessorCount = vgpu_get_model()->sms;
  p->canMapHostMemory = 1;
  p->concurrentKernels = 1;
  p->ECCEnabled = 1;
  p->pciBusID = d + 1;
  p->asyncEngineCount = 3;
  p->unifiedAddressing = 1;
  p->memoryBusWidth = vgpu_get_model()->bus_bits;
  p->l2CacheSize = vgpu_get_model()->l2_bytes;
  p->maxThreadsPerMultiProcessor = vgpu_get_model()->threads_per_sm;
  p->streamPrioritiesSupported = 1;
  p->globalL1CacheSupported = p->localL1CacheSupported = 1;
  p->sharedMemPerMultiprocessor = vgpu_get_model()->smem_per_sm;
  p->regsPerMultiprocessor = 65536;
  p->managedMemory = 1;
  p->concurrentManagedAccess = 1;
  p->computePreemptionSupported = 1;
  p->canUseHostPointerForRegisteredMem = 1;
  p->cooperativeLaunch = 1;
  p->sharedMemPerBlockOptin = vgpu_get_model()->smem_optin;
  p->maxBlocksPerMultiProcessor = vgpu_get_model()->major == 8
                                      ? (vgpu_get_model()->minor == 0   ? 32
                                         : vgpu_get_model()->minor == 9 ? 24
                                                                        : 16)
                                  : vgpu_get_model()->major < 8 ? 16
                                                                : 32;
  p->reservedSharedMemPerBlock = 1024;
  p->hostRegisterSupported = 1;
  p->memoryPoolsSupported = 1;
  p->ipcEventSupported = 1;
  p->clusterLaunch = vgpu_get_model()->major >= 9;
  p->unifiedFunctionPointers = 1;
  return 0;
}
VGPU_API cudaError_t cudaDeviceGetAttribute(int* v, enum cudaDeviceAttr a, int d) {
  struct cudaDeviceProp p;
  cudaError_t e = cudaGetDeviceProperties(&p, d);
  if (e) return e;
  switch ((int)a) {
    case cudaDevAttrMaxThreadsPerBlock:
      *v = p.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxBlockDimX:
      *v = 1024;
      break;
    case cudaDevAttrMaxBlockDimY:
      *v = 1024;
      break;
    case cudaDevAttrMaxBlockDimZ:
      *v = 64;
      break;
    case cudaDevAttrMaxGridDimX:
      *v = p.maxGridSize[0];
      break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      *v = 65535;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *v = 49152;
      break;
    case cudaDevAttrTotalConstantMemory:
      *v = 65536;
      break;
    case cudaDevAttrWarpSize:
      *v = 32;
      break;
    case cudaDevAttrMaxPitch:
      *v = 2147483647;
      break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      *v = 65536;
      break;
    case cudaDevAttrClockRate:
      *v = 1980000;
      break;
    case cudaDevAttrMemoryClockRate:
      *v = 2619000;
      break;
    case cudaDevAttrTextureAlignment:
      *v = 512;
      break;
    case cudaDevAttrMultiProcessorCount:
      *v = p.multiProcessorCount;
      break;
    case cudaDevAttrGlobalMemoryBusWidth:
      *v = p.memoryBusWidth;
      break;
    case cudaDevAttrL2CacheSize:
      *v = p.l2CacheSize;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *v = p.maxThreadsPerMultiProcessor;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *v = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *v = p.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *v = (int)p.sharedMemPerMultiprocessor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *v = (int)p.sharedMemPerBlockOptin;
      break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      *v = 1024;
      break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      *v = p.maxBlocksPerMultiProcessor;
      break;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrEccEnabled:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
      *v = 1;
      break;
    case cudaDevAttrPciBusId:
      *v = p.pciBusID;
      break;
    default:
      vgpu_log("cudaDeviceGetAttribute %d -> 0", (int)a);
      *v = 0;
  }
  return 0;
}
// ---- streams and events
typedef struct {
  int priority, capturing;
  unsigned long long id;
} stream;
typedef struct {
  long long ns;
  int pending;
  uint64_t epoch;
} event;
static int real_stream(cudaStream_t s) { return (uintptr_t)s > 16; }
static int legacy_stream_captures;
VGPU_API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* s, unsigned f, int prio) {
  static unsigned long long last_id;
  stream* x = calloc(1, sizeof *x);
  if (!x) return ret(cudaErrorMemoryAllocation);
  x->priority = prio;
  x->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
  *s = (cudaStream_t)x;
  return 0;
}
VGPU_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned f) {
  return cudaStreamCreateWithPriority(s, f, 0);
}
VGPU_API cudaError_t cudaStreamCreate(cudaStream_t* s) {
  return cudaStreamCreateWithPriority(s, 0, 0);
}
VGPU_API cudaError_t cudaStreamDestroy(cudaStream_t s) {
  if (real_stream(s)) free(s);
  return 0;
}
VGPU_API cudaError_t cudaStreamQuery(cudaStream_t s) { return 0; }
VGPU_API cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  vgpu_complete_all_events();
  return 0;
}
VGPU_API cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned f) { return 0; }
VGPU_API cudaError_t cudaStreamGetPriority(cudaStream_t s, int* p) {
  *p = real_stream(s) ? ((stream*)s)->priority : 0;
  return 0;
}
VGPU_API cudaError_t cudaStreamGetFlags(cudaStream_t s, unsigned* f) {
  *f = 0;
  return 0;
}
VGPU_API cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t cb, void* u,
                                           unsigned f) {
  cb(s, cudaSuccess, u);
  return 0;
}
VGPU_API cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t fn, void* u) {
  fn(u);
  return 0;
}
VGPU_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned f) {
  *e = calloc(1, sizeof(event));
  return 0;
}
VGPU_API cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
VGPU_API cudaError_t cudaEventDestroy(cudaEvent_t e) {
  free(e);
  return 0;
}
VGPU_API cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  event* v = (event*)e;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  v->ns = t.tv_sec * 1000000000ll + t.tv_nsec;
  v->pending = vgpu_event_lag();
  v->epoch = vgpu_event_epoch();
  return 0;
}
VGPU_API cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned f) {
  return cudaEventRecord(e, s);
}
VGPU_API cudaError_t cudaEventQuery(cudaEvent_t e) {
  event* v = (event*)e;
  if (v->pending > 0 && v->epoch == vgpu_event_epoch()) {
    v->pending--;
    return ret(cudaErrorNotReady);
  }
  return 0;
}
VGPU_API cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  ((event*)e)->pending = 0;
  return 0;
}
VGPU_API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  *ms = (float)((((event*)b)->ns - ((event*)a)->ns) / 1e6);
  return 0;
}
// ---- graphs: nothing is recorded, everything succeeds
VGPU_API cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode m) {
  if (real_stream(s))
    ((stream*)s)->capturing = 1;
  else
    legacy_stream_captures = 1;
  return 0;
}
VGPU_API cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  if (real_stream(s))
    ((stream*)s)->capturing = 0;
  else
    legacy_stream_captures = 0;
  *g = vgpu_new_handle();
  return 0;
}
static int capturing(cudaStream_t s) { return real_stream(s) ? ((stream*)s)->capturing : 0; }
VGPU_API cudaError_t cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus* st) {
  *st = capturing(s) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return 0;
}
VGPU_API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus* st,
                                              unsigned long long* id, cudaGraph_t* g,
                                              const cudaGraphNode_t** deps,
                                              const cudaGraphEdgeData** ed, size_t* n) {
  cudaStreamIsCapturing(s, st);
  if (id) *id = capturing(s) ? ((stream*)s)->id : 0;
  if (g) *g = NULL;
  if (deps) *deps = NULL;
  if (ed) *ed = NULL;
  if (n) *n = 0;
  return 0;
}
VGPU_API cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode* m) {
  return 0;
}
VGPU_API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* e, cudaGraph_t g,
                                                   unsigned long long f) {
  *e = vgpu_new_handle();
  return 0;
}
VGPU_API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t g, unsigned long long f) {
  *e = vgpu_new_handle();
  return 0;
}
VGPU_API cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) { return 0; }
VGPU_API cudaError_t cudaGraphDestroy(cudaGraph_t g) { return 0; }
VGPU_API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) { return 0; }
VGPU_API cudaError_t cudaGraphGetNodes(cudaGraph_t g, cudaGraphNode_t* n, size_t* c) {
  if (n && *c) n[0] = (cudaGraphNode_t)g;
  *c = 1;
  return 0;
}  // never empty: PyTorch warns about empty graphs
VGPU_API cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t n, cudaGraphNode_t* d,
                                                  cudaGraphEdgeData* e, size_t* c) {
  *c = 0;
  return 0;
}
VGPU_API cudaError_t cudaGraphDebugDotPrint(cudaGraph_t g, const char* p, unsigned f) { return 0; }
// ---- errors
VGPU_API cudaError_t cudaGetLastError(void) {
  cudaError_t e = error_of_thread;
  error_of_thread = 0;
  return e;
}
VGPU_API cudaError_t cudaPeekAtLastError(void) { return error_of_thread; }
VGPU_API const char* cudaGetErrorString(cudaError_t e) {
  switch ((int)e) {
    case 0:
      return "no error";
    case 1:
      return "invalid argument";
    case 2:
      return "out of memory";
    case 100:
      return "no CUDA-capable device is detected";
    case 101:
      return "invalid device ordinal";
    case 600:
      return "device not ready";
    case 801:
      return "operation not supported";
    default:
      return "unknown error";
  }
}
VGPU_API const char* cudaGetErrorName(cudaError_t e) {
  switch ((int)e) {
    case 0:
      return "cudaSuccess";
    case 1:
      return "cudaErrorInvalidValue";
    case 2:
      return "cudaErrorMemoryAllocation";
    case 100:
      return "cudaErrorNoDevice";
    case 101:
      return "cudaErrorInvalidDevice";
    case 600:
      return "cudaErrorNotReady";
    case 801:
      return "cudaErrorNotSupported";
    default:
      return "cudaErrorUnknown";
  }
}
// ---- kernels
typedef struct kernel {
  const void* host;
  const char* name;
  uint64_t launches;
  struct kernel* next;
} kernel;
#define BUCKETS 65536
static kernel* kernels[BUCKETS];
static unsigned hash(const void* p) {
  return (unsigned)(((uintptr_t)p * 0x9E3779B97F4A7C15ull) >> 48);
}
static kernel* kernel_of(const void* host, int make, const char* name) {
  unsigned h = hash(host);
  for (kernel* k = kernels[h]; k; k = k->next)
    if (k->host == host) return k;
  if (!make) return NULL;
  kernel* k = calloc(1, sizeof *k);
  k->host = host;
  k->name = name;
  k->next = kernels[h];
  kernels[h] = k;
  return k;
}
VGPU_API void** __cudaRegisterFatBinary(void* f) { return calloc(1, sizeof(void*)); }
VGPU_API void __cudaRegisterFatBinaryEnd(void** h) {}
VGPU_API void __cudaUnregisterFatBinary(void** h) { free(h); }
VGPU_API char __cudaInitModule(void** h) { return 1; }
VGPU_API void __cudaRegisterVar(void** h, char* hv, char* da, const char* n, int ext, size_t sz,
                                int c, int g) {}
VGPU_API void __cudaRegisterManagedVar(void** h, void** hv, char* da, const char* n, int ext,
                                       size_t sz, int c, int g) {}
VGPU_API void __cudaRegisterFunction(void** h, const char* hf, char* df, const char* name, int tl,
                                     uint3* tid, uint3* bid, dim3* bd, dim3* gd, int* ws) {
  pthread_mutex_lock(&mutex);
  kernel_of(hf, 1, name);
  pthread_mutex_unlock(&mutex);
}
typedef struct {
  dim3 g, b;
  size_t sm;
  void* st;
} config;
static __thread config configurations[8];
static __thread int configuration_count;
VGPU_API unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t sm, struct CUstream_st* st) {
  if (configuration_count == 8) return 1;
  configurations[configuration_count++] = (config){g, b, sm, st};
  return 0;
}
VGPU_API cudaError_t __cudaPopCallConfiguration(dim3* g, dim3* b, size_t* sm, void* st) {
  if (!configuration_count) return ret(cudaErrorMissingConfiguration);
  config* c = &configurations[--configuration_count];
  *g = c->g;
  *b = c->b;
  *sm = c->sm;
  *(void**)st = c->st;
  return 0;
}
VGPU_API cudaError_t __cudaGetKernel(cudaKernel_t* k, const void* host) {
  pthread_mutex_lock(&mutex);
  *k = (cudaKernel_t)kernel_of(host, 1, "?");
  pthread_mutex_unlock(&mutex);
  return 0;
}
VGPU_API cudaError_t cudaGetKernel(cudaKernel_t* k, const void* host) {
  return __cudaGetKernel(k, host);
}
static cudaError_t launch(kernel* k, dim3 g, dim3 b) {
  vgpu_count_launch();
  if (k) __atomic_add_fetch(&k->launches, 1, __ATOMIC_RELAXED);
  if (vgpu_get_settings()->log_launches)
    vgpu_log("launch %s grid %u,%u,%u block %u,%u,%u", k ? k->name : "?", g.x, g.y, g.z, b.x, b.y,
             b.z);
  return 0;
}
VGPU_API cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void** args, size_t sm,
                                        cudaStream_t s) {
  return launch((kernel*)k, g, b);
}
VGPU_API cudaError_t cudaLaunchKernel(const void* f, dim3 g, dim3 b, void** a, size_t sm,
                                      cudaStream_t s) {
  return launch(kernel_of(f, 0, 0), g, b);
}
VGPU_API cudaError_t cudaLaunchCooperativeKernel(const void* f, dim3 g, dim3 b, void** a, size_t sm,
                                                 cudaStream_t s) {
  return launch(kernel_of(f, 0, 0), g, b);
}
VGPU_API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* f, void** a) {
  return launch(kernel_of(f, 0, 0), c->gridDim, c->blockDim);
}
VGPU_API size_t vgpu_kernels_launched(const char** names, uint64_t* counts, size_t most) {
  size_t n = 0;
  for (size_t i = 0; i < BUCKETS; i++)
    for (kernel* k = kernels[i]; k; k = k->next)
      if (k->launches) {
        if (n < most) {
          names[n] = k->name;
          counts[n] = k->launches;
        }
        n++;
      }
  return n;
}
// The newest code image of the wheel that this device could run decides what CUB asks for.
static int sm_of_image(void) {
  static const int built[] = {75, 80, 86, 90, 100, 120};
  int cc = vgpu_get_model()->major * 10 + vgpu_get_model()->minor, best = cc;
  for (size_t i = 0; i < sizeof built / sizeof *built; i++)
    if (built[i] <= cc && built[i] / 10 == vgpu_get_model()->major) best = built[i];
  return best;
}
VGPU_API cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes* a, const void* f) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 32;
  a->ptxVersion = a->binaryVersion = sm_of_image();
  a->maxDynamicSharedSizeBytes = 49152;
  return 0;
}
VGPU_API cudaError_t cudaFuncSetAttribute(const void* f, enum cudaFuncAttribute a, int v) {
  return 0;
}
VGPU_API cudaError_t cudaFuncSetCacheConfig(const void* f, enum cudaFuncCache c) { return 0; }
VGPU_API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void* f,
                                                                            int block, size_t sm,
                                                                            unsigned fl) {
  struct cudaDeviceProp p;
  cudaGetDeviceProperties(&p, 0);
  int by_threads = block > 0 ? vgpu_get_model()->threads_per_sm / ((block + 31) / 32 * 32) : 1;
  int by_smem = (int)(vgpu_get_model()->smem_per_sm / (sm + 1024));
  int r = by_threads < by_smem ? by_threads : by_smem;
  if (r > p.maxBlocksPerMultiProcessor) r = p.maxBlocksPerMultiProcessor;
  *n = r > 0 ? r : 1;  // an estimate: registers of the kernel are not known here
  return 0;
}
VGPU_API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void* f, int block,
                                                                   size_t sm) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(n, f, block, sm, 0);
}
// ---- the rest
VGPU_API cudaError_t cudaProfilerStart(void) { return 0; }
VGPU_API cudaError_t cudaProfilerStop(void) { return 0; }
VGPU_API cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* h, void* p) {
  return ret(cudaErrorNotSupported);
}
VGPU_API cudaError_t cudaIpcOpenMemHandle(void** p, cudaIpcMemHandle_t h, unsigned f) {
  return ret(cudaErrorNotSupported);
}
VGPU_API cudaError_t cudaIpcCloseMemHandle(void* p) { return ret(cudaErrorNotSupported); }
VGPU_API cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t* h, cudaEvent_t e) {
  return ret(cudaErrorNotSupported);
}
VGPU_API cudaError_t cudaIpcOpenEventHandle(cudaEvent_t* e, cudaIpcEventHandle_t h) {
  return ret(cudaErrorNotSupported);
}
static void* driver(void) {
  static void* h;
  if (h) return h;
  if ((h = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD))) return h;
  Dl_info i;
  char path[4096];
  if (!dladdr((void*)driver, &i)) return NULL;
  snprintf(path, sizeof path, "%s", i.dli_fname);
  char* slash = strrchr(path, '/');
  if (slash) snprintf(slash + 1, sizeof path - (slash + 1 - path), "libcuda.so.1");
  return h = dlopen(path, RTLD_LAZY);
}
VGPU_API cudaError_t cudaGetDriverEntryPointByVersion(const char* sym, void** fp, unsigned ver,
                                                      unsigned long long fl,
                                                      enum cudaDriverEntryPointQueryResult* st) {
  char v2[256];
  snprintf(v2, sizeof v2, "%s_v2", sym);
  void* h = driver();
  *fp = h ? dlsym(h, sym) : NULL;
  if (h && !*fp) *fp = dlsym(h, v2);
  if (!*fp) vgpu_log("driver entry point %s: not there", sym);
  if (st) *st = *fp ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return 0;
}
VGPU_API cudaError_t cudaGetDriverEntryPoint(const char* sym, void** fp, unsigned long long fl,
                                             enum cudaDriverEntryPointQueryResult* st) {
  return cudaGetDriverEntryPointByVersion(sym, fp, 13000, fl, st);
}
