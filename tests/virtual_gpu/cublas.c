// SPDX-License-Identifier: Apache-2.0
// The calls of cuBLAS (libcublas.so.13) that answer something. Every matrix product is a generated
// stub that succeeds. PyTorch hands cuBLAS its workspace itself, so none is invented here.
// The types of cuda_fp16.h and cuda_bf16.h, which want headers of a further package.
typedef struct {
  unsigned short x;
} __half;
typedef struct {
  unsigned short x;
} __nv_bfloat16;
#include <cublas_v2.h>

#include "virtual_gpu.h"

typedef struct {
  int math, pointer;
  void* stream;
} handle;
VGPU_API cublasStatus_t cublasCreate_v2(cublasHandle_t* h) {
  *h = vgpu_new_handle();
  return 0;
}
VGPU_API cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t m) {
  ((handle*)h)->math = m;
  return 0;
}
VGPU_API cublasStatus_t cublasGetMathMode(cublasHandle_t h, cublasMath_t* m) {
  *m = ((handle*)h)->math;
  return 0;
}
VGPU_API cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t m) {
  ((handle*)h)->pointer = m;
  return 0;
}
VGPU_API cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t h, cublasPointerMode_t* m) {
  *m = ((handle*)h)->pointer;
  return 0;
}
