// SPDX-License-Identifier: Apache-2.0
// A run-time compiler (libnvrtc.so.13) that compiles nothing: PyTorch's jiterated kernels load an
// empty program.
#include "virtual_gpu.h"

VGPU_API int nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 0;
  return 0;
}
VGPU_API int nvrtcCreateProgram(void** p, const char* src, const char* name, int n,
                                const char* const* h, const char* const* hn) {
  *p = vgpu_new_handle();
  return 0;
}
VGPU_API int nvrtcCompileProgram(void* p, int n, const char* const* o) { return 0; }
VGPU_API int nvrtcGetPTXSize(void* p, size_t* n) {
  *n = 1;
  return 0;
}
VGPU_API int nvrtcGetPTX(void* p, char* s) {
  *s = 0;
  return 0;
}
VGPU_API int nvrtcGetCUBINSize(void* p, size_t* n) {
  *n = 1;
  return 0;
}
VGPU_API int nvrtcGetCUBIN(void* p, char* s) {
  *s = 0;
  return 0;
}
VGPU_API int nvrtcGetProgramLogSize(void* p, size_t* n) {
  *n = 1;
  return 0;
}
VGPU_API int nvrtcGetProgramLog(void* p, char* s) {
  *s = 0;
  return 0;
}
VGPU_API int nvrtcGetLoweredName(void* p, const char* e, const char** l) {
  *l = e;
  return 0;
}
VGPU_API int nvrtcAddNameExpression(void* p, const char* e) { return 0; }
VGPU_API int nvrtcDestroyProgram(void** p) {
  *p = 0;
  return 0;
}
VGPU_API const char* nvrtcGetErrorString(int e) {
  return e ? "virtual GPU: nvrtc error" : "NVRTC_SUCCESS";
}
