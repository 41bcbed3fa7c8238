// SPDX-License-Identifier: Apache-2.0
// cuDNN (libcudnn.so.9) that accepts every graph, plan and RNN and runs none. Known here: tensor
// and filter descriptors, the weight space of an RNN. Not known: workspaces, reserve spaces, the
// state of dropout; those come from cuDNN's own tables on a real card. Each such question is
// counted and answered with VIRTUAL_GPU_CUDNN_WORKSPACE.
#include <cudnn.h>
#include <stdlib.h>
#include <string.h>

#include "virtual_gpu.h"

static size_t unknown(const char* question) {
  vgpu_unknown(question);
  return (size_t)vgpu_get_settings()->cudnn_workspace;
}
VGPU_API size_t cudnnGetVersion(void) { return CUDNN_VERSION; }
VGPU_API size_t cudnnGetCudartVersion(void) { return 13000; }
VGPU_API cudnnStatus_t cudnnGetProperty(libraryPropertyType t, int* v) {
  *v = t == MAJOR_VERSION ? CUDNN_MAJOR : t == MINOR_VERSION ? CUDNN_MINOR : CUDNN_PATCHLEVEL;
  return 0;
}
VGPU_API const char* cudnnGetErrorString(cudnnStatus_t s) {
  return s ? "virtual GPU: cuDNN error" : "CUDNN_STATUS_SUCCESS";
}
VGPU_API void cudnnGetLastErrorString(char* m, size_t n) {
  if (n) *m = 0;
}
VGPU_API cudnnStatus_t cudnnCreate(cudnnHandle_t* h) {
  *h = vgpu_new_handle();
  return 0;
}
VGPU_API cudnnStatus_t cudnnDestroy(cudnnHandle_t h) {
  free(h);
  return 0;
}
VGPU_API cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t s) {
  *(cudaStream_t*)h = s;
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetStream(cudnnHandle_t h, cudaStream_t* s) {
  *s = *(cudaStream_t*)h;
  return 0;
}
// ---- tensors and filters
typedef struct {
  cudnnDataType_t t;
  int n, d[8], s[8];
} tensor;
VGPU_API cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* d) {
  *d = calloc(1, sizeof(tensor));
  return 0;
}
VGPU_API cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t d) {
  free(d);
  return 0;
}
VGPU_API cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t d, cudnnDataType_t t,
                                                  int n, const int* dim, const int* str) {
  tensor* x = (tensor*)d;
  x->t = t;
  x->n = n;
  memcpy(x->d, dim, 4 * n);
  memcpy(x->s, str, 4 * n);
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetTensorNdDescriptor(const cudnnTensorDescriptor_t d, int want,
                                                  cudnnDataType_t* t, int* n, int* dim, int* str) {
  tensor* x = (tensor*)d;
  if (t) *t = x->t;
  if (n) *n = x->n;
  int k = x->n < want ? x->n : want;
  if (dim) memcpy(dim, x->d, 4 * k);
  if (str) memcpy(str, x->s, 4 * k);
  return 0;
}
VGPU_API cudnnStatus_t cudnnCreateFilterDescriptor(cudnnFilterDescriptor_t* d) {
  *d = calloc(1, sizeof(tensor));
  return 0;
}
VGPU_API cudnnStatus_t cudnnDestroyFilterDescriptor(cudnnFilterDescriptor_t d) {
  free(d);
  return 0;
}
VGPU_API cudnnStatus_t cudnnSetFilterNdDescriptor(cudnnFilterDescriptor_t d, cudnnDataType_t t,
                                                  cudnnTensorFormat_t f, int n, const int* dim) {
  tensor* x = (tensor*)d;
  x->t = t;
  x->n = n;
  x->s[0] = f;
  memcpy(x->d, dim, 4 * n);
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetFilterNdDescriptor(const cudnnFilterDescriptor_t d, int want,
                                                  cudnnDataType_t* t, cudnnTensorFormat_t* f,
                                                  int* n, int* dim) {
  tensor* x = (tensor*)d;
  *t = x->t;
  *n = x->n;
  *f = x->s[0];
  memcpy(dim, x->d, 4 * (x->n < want ? x->n : want));
  return 0;
}
static void set3(cudnnTensorDescriptor_t d, cudnnDataType_t t, int a, int b, int c) {
  if (!d) return;
  int dim[3] = {a, b, c}, str[3] = {b * c, c, 1};
  cudnnSetTensorNdDescriptor(d, t, 3, dim, str);
}
static size_t width(cudnnDataType_t t) {
  return t == CUDNN_DATA_DOUBLE ? 8 : t == CUDNN_DATA_FLOAT ? 4 : 2;
}
// ---- backend (graph) API: one engine configuration for every graph, no notes, no knobs
typedef struct {
  cudnnBackendDescriptorType_t type;
} backend;
VGPU_API cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t t,
                                                    cudnnBackendDescriptor_t* d) {
  backend* b = calloc(1, 64);
  b->type = t;
  *d = b;
  return 0;
}
VGPU_API cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
  free(d);
  return 0;
}
VGPU_API cudnnStatus_t cudnnBackendInitialize(cudnnBackendDescriptor_t d) { return 0; }
VGPU_API cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d) { return 0; }
VGPU_API cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d,
                                                cudnnBackendAttributeName_t n,
                                                cudnnBackendAttributeType_t t, int64_t c,
                                                const void* v) {
  return 0;
}
VGPU_API cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t p,
                                           cudnnBackendDescriptor_t v) {
  return 0;
}
VGPU_API cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d,
                                                cudnnBackendAttributeName_t n,
                                                cudnnBackendAttributeType_t t, int64_t want,
                                                int64_t* got, void* v) {
  int64_t c = 0;
  if (n == CUDNN_ATTR_ENGINEHEUR_RESULTS || n == CUDNN_ATTR_ENGINECFG_ENGINE ||
      n == CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
    c = 1;
  else if (n == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE ||
           n == CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE) {
    c = 1;
    if (v) *(int64_t*)v = (int64_t)unknown("execution plan workspace");
  } else if (n == CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT) {
    c = 1;
    if (v) *(int64_t*)v = 1;
  } else if (n == CUDNN_ATTR_ENGINE_GLOBAL_INDEX) {
    c = 1;
    if (v) *(int64_t*)v = 0;
  } else if (t == CUDNN_TYPE_INT32 && v && want == 1) {
    c = 1;
    *(int32_t*)v = 0;
  } else if (t == CUDNN_TYPE_INT64 && v && want == 1) {
    c = 1;
    *(int64_t*)v = 0;
  }
  if (got) *got = c;
  return 0;
}
// ---- RNN
typedef struct {
  cudnnRNNMode_t cell;
  int bias, bi, in, hid, proj, layers;
  cudnnDataType_t t;
} rnn;
VGPU_API cudnnStatus_t cudnnCreateRNNDescriptor(cudnnRNNDescriptor_t* d) {
  *d = calloc(1, sizeof(rnn));
  return 0;
}
VGPU_API cudnnStatus_t cudnnDestroyRNNDescriptor(cudnnRNNDescriptor_t d) {
  free(d);
  return 0;
}
VGPU_API cudnnStatus_t cudnnSetRNNDescriptor_v8(cudnnRNNDescriptor_t d, cudnnRNNAlgo_t algo,
                                                cudnnRNNMode_t cell, cudnnRNNBiasMode_t bias,
                                                cudnnDirectionMode_t dir, cudnnRNNInputMode_t im,
                                                cudnnDataType_t t, cudnnDataType_t prec,
                                                cudnnMathType_t mt, int32_t in, int32_t hid,
                                                int32_t proj, int32_t layers,
                                                cudnnDropoutDescriptor_t dd, uint32_t aux) {
  *(rnn*)d = (rnn){cell,
                   bias == CUDNN_RNN_NO_BIAS       ? 0
                   : bias == CUDNN_RNN_DOUBLE_BIAS ? 2
                                                   : 1,
                   dir == CUDNN_BIDIRECTIONAL ? 2 : 1,
                   in,
                   hid,
                   proj,
                   layers,
                   t};
  return 0;
}
static int gates(const rnn* r) { return r->cell == CUDNN_LSTM ? 4 : r->cell == CUDNN_GRU ? 3 : 1; }
static int rec(const rnn* r) { return r->proj && r->proj != r->hid ? r->proj : r->hid; }
static size_t mats(const rnn* r, int pseudo) {  // elements of the matrices of one pseudo layer
  size_t in = pseudo / r->bi == 0 ? r->in : (size_t)rec(r) * r->bi;
  return (size_t)gates(r) * r->hid * (in + rec(r)) +
         (rec(r) != r->hid ? (size_t)r->proj * r->hid : 0);
}
VGPU_API cudnnStatus_t cudnnGetRNNWeightSpaceSize(cudnnHandle_t h, cudnnRNNDescriptor_t d,
                                                  size_t* n) {
  rnn* r = (rnn*)d;
  size_t e = 0;
  for (int p = 0; p < r->layers * r->bi; p++) e += mats(r, p) + (size_t)r->bias * gates(r) * r->hid;
  *n = e * width(r->t);
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetRNNWeightParams(cudnnHandle_t h, cudnnRNNDescriptor_t d, int32_t p,
                                               size_t n, const void* w, int32_t id,
                                               cudnnTensorDescriptor_t md, void** ma,
                                               cudnnTensorDescriptor_t bd, void** ba) {
  rnn* r = (rnn*)d;
  int g = gates(r), hid = r->hid, in = p / r->bi == 0 ? r->in : rec(r) * r->bi;
  size_t off = 0, boff = 0;
  for (int q = 0; q < p; q++) off += mats(r, q);
  for (int q = 0; q < r->layers * r->bi; q++) boff += mats(r, q);
  boff += (size_t)p * r->bias * g * hid;
  void *m0 = NULL,
       *b0 = NULL;  // PyTorch asks for the matrix or the bias and passes NULL for the other
  if (ma) *ma = NULL;
  if (ba) *ba = NULL;
  if (!ma) ma = &m0;
  if (!ba) ba = &b0;
  if (id < 2 * g) {
    int k = id % g, cols = id < g ? in : rec(r);
    off += (id < g ? 0 : (size_t)g * hid * in) + (size_t)k * hid * cols;
    set3(md, r->t, 1, hid, cols);
    *ma = (char*)w + off * width(r->t);
    if (r->bias == 2 || (r->bias == 1 && id < g)) {
      set3(bd, r->t, 1, hid, 1);
      *ba = (char*)w + (boff + (size_t)id * hid) * width(r->t);
    }
  } else if (rec(r) != hid) {
    off += (size_t)g * hid * (in + rec(r));
    set3(md, r->t, 1, r->proj, hid);
    *ma = (char*)w + off * width(r->t);
  }
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetRNNTempSpaceSizes(cudnnHandle_t h, cudnnRNNDescriptor_t d,
                                                 cudnnForwardMode_t m, cudnnRNNDataDescriptor_t x,
                                                 size_t* ws, size_t* rs) {
  if (ws) *ws = unknown("RNN workspace");
  if (rs) *rs = unknown("RNN reserve space");
  return 0;
}
VGPU_API cudnnStatus_t cudnnDropoutGetStatesSize(cudnnHandle_t h, size_t* n) {
  *n = unknown("dropout states");
  if (!*n) *n = 16;
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o, const cudnnTensorDescriptor_t x,
    const cudnnTensorDescriptor_t z, const cudnnTensorDescriptor_t y,
    const cudnnTensorDescriptor_t b, const cudnnActivationDescriptor_t a, size_t* n) {
  *n = unknown("batch norm forward workspace");
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o, const cudnnTensorDescriptor_t x,
    const cudnnTensorDescriptor_t y, const cudnnTensorDescriptor_t dy,
    const cudnnTensorDescriptor_t dz, const cudnnTensorDescriptor_t dx,
    const cudnnTensorDescriptor_t b, const cudnnActivationDescriptor_t a, size_t* n) {
  *n = unknown("batch norm backward workspace");
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
    cudnnHandle_t h, cudnnBatchNormMode_t m, cudnnBatchNormOps_t o,
    const cudnnActivationDescriptor_t a, const cudnnTensorDescriptor_t x, size_t* n) {
  *n = unknown("batch norm reserve space");
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetCTCLossWorkspaceSize(
    cudnnHandle_t h, const cudnnTensorDescriptor_t p, const cudnnTensorDescriptor_t g, const int* l,
    const int* ll, const int* il, cudnnCTCLossAlgo_t a, cudnnCTCLossDescriptor_t d, size_t* n) {
  *n = unknown("CTC workspace");
  return 0;
}
VGPU_API cudnnStatus_t cudnnGetCTCLossWorkspaceSize_v8(cudnnHandle_t h, cudnnCTCLossAlgo_t a,
                                                       cudnnCTCLossDescriptor_t d,
                                                       const cudnnTensorDescriptor_t p,
                                                       const cudnnTensorDescriptor_t g, size_t* n) {
  *n = unknown("CTC workspace");
  return 0;
}
