// SPDX-License-Identifier: Apache-2.0
// Enough of NCCL (libnccl.so.2) to make communicators; collectives are stubs that move nothing.
#include <string.h>

#include "virtual_gpu.h"

typedef struct {
  int rank, size;
} comm;
typedef struct {
  char b[128];
} uid;
VGPU_API int ncclGetVersion(int* v) {
  *v = 22809;
  return 0;
}
VGPU_API int ncclGetUniqueId(uid* u) {
  memset(u, 0, sizeof *u);
  return 0;
}
static void* make(int n, int r) {
  comm* c = vgpu_new_handle();
  c->rank = r;
  c->size = n;
  return c;
}
VGPU_API int ncclCommInitRank(void** c, int n, uid u, int r) {
  *c = make(n, r);
  return 0;
}
VGPU_API int ncclCommInitRankConfig(void** c, int n, uid u, int r, void* cfg) {
  *c = make(n, r);
  return 0;
}
VGPU_API int ncclCommInitAll(void** c, int n, const int* d) {
  for (int i = 0; i < n; i++) c[i] = make(n, i);
  return 0;
}
VGPU_API int ncclCommCount(comm* c, int* n) {
  *n = c->size;
  return 0;
}
VGPU_API int ncclCommUserRank(comm* c, int* r) {
  *r = c->rank;
  return 0;
}
VGPU_API int ncclCommGetAsyncError(comm* c, int* e) {
  *e = 0;
  return 0;
}
VGPU_API const char* ncclGetErrorString(int e) {
  return e ? "virtual GPU: not supported" : "no error";
}
VGPU_API const char* ncclGetLastError(comm* c) { return ""; }
VGPU_API int ncclMemAlloc(void** p, size_t n) { return 1; }
