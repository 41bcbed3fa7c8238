// SPDX-License-Identifier: Apache-2.0
// What the hooks of this folder share: the session they write to, and small helpers to describe a
// tensor in an event. The hooks stay in the process for good; without a session they do nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <new>

#include "profiler/core/hook_timer.h"
#include "profiler/core/source.h"

namespace tally::hooks {

// The session's context, or null while none records. Set by the sources' start and stop.
inline std::atomic<Context*>& active_context() {
  static std::atomic<Context*> context{nullptr};
  return context;
}
inline Context* recording() noexcept { return active_context().load(std::memory_order_acquire); }

// Before the first session: tells the tensor table the names of LibTorch's dtypes.
void prepare(Context& context);

// Where a tensor's bytes are: the start of its storage. Nothing for a tensor without a storage of
// its own on a watched device (undefined, sparse, opaque, meta) and for an empty one.
struct StorageRef {
  void* pointer = nullptr;
  int64_t bytes = 0;
  DeviceIndex device = 0;
  bool foreign = false;  // bypasses the allocator: from_blob, numpy, shared memory, mmap
  explicit operator bool() const { return pointer != nullptr; }
};
StorageRef storage_of(const at::Tensor& tensor) noexcept;

// Ask memory for a tensor, and for what it points to, without waiting.
inline void prefetch_tensor(const c10::TensorImpl* tensor) noexcept {
  static_assert(sizeof(c10::TensorImpl) <= 192);
  for (size_t at = 0; at < 192; at += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(tensor) + at);
  }
}
inline void prefetch_contents(const at::Tensor& tensor) noexcept {
  if (!tensor.defined()) return;
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  const auto* storage =
      reinterpret_cast<const char*>(impl->unsafe_storage().unsafeGetStorageImpl());
  __builtin_prefetch(storage);
  __builtin_prefetch(storage + 64);
  __builtin_prefetch(impl->autograd_meta());
}

// dtype and shape; 0 where they cannot be asked safely.
TensorId describe(Context& context, const at::Tensor& tensor) noexcept;

// Adds evidence about `tensor`: fills a, b, c and kForeign, and adopts a block that was alive before
// the session. Sparse gradients give one event for their indices and one for their values.
void add_tensor(Context& context, EventLog::Batch& batch, EventKind kind, const at::Tensor& tensor,
                uint32_t id = 0, uint8_t flags = 0) noexcept;

// The same for a tensor that belongs to a parameter (its gradient, its optimizer state): c is the
// parameter's address, 0 for none.
void add_related(Context& context, EventLog::Batch& batch, EventKind kind, const at::Tensor& tensor,
                 const at::Tensor& parameter, uint32_t id = 0) noexcept;

// Each alone, in a batch of its own.
inline void push_tensor(Context& context, EventKind kind, const at::Tensor& tensor, uint32_t id = 0,
                        uint8_t flags = 0) noexcept {
  EventLog::Batch batch(context.log);
  add_tensor(context, batch, kind, tensor, id, flags);
}
inline void push_related(Context& context, EventKind kind, const at::Tensor& tensor,
                         const at::Tensor& parameter, uint32_t id = 0) noexcept {
  EventLog::Batch batch(context.log);
  add_related(context, batch, kind, tensor, parameter, id);
}

// A thread-local object behind one pointer: made at the thread's first use, freed at its end, a
// plain load in between. The object itself would be too much for the static thread-local storage
// of a library that is loaded late. Of each T there is one a thread.
template <typename T>
class OfThread {
 public:
  // nullptr once the thread's objects are being destroyed, and without memory for one.
  static T* get() noexcept {
    if (pointer_) return pointer_;
    return make();
  }

 private:
  struct Owner {
    ~Owner() {
      delete pointer_;
      pointer_ = nullptr;
      ended_ = true;
    }
  };
  static T* make() noexcept {
    if (ended_) return nullptr;
    static thread_local Owner owner;
    (void)owner;
    pointer_ = new (std::nothrow) T();
    return pointer_;
  }
  __attribute__((tls_model("initial-exec"))) static inline thread_local constinit T* pointer_ =
      nullptr;
  __attribute__((tls_model("initial-exec"))) static inline thread_local constinit bool ended_ =
      false;
};

}  // namespace tally::hooks
