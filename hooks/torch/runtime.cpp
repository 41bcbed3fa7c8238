// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/runtime.h"

#include <ATen/SparseTensorImpl.h>
#include <c10/core/StorageImpl.h>

#include "hooks/torch/cpu_allocator.h"

namespace tally::hooks {

// As Python prints them: "float32", "bfloat16".
void prepare(Context& context) {
  std::vector<std::string> names;
  for (int code = 0; code < static_cast<int>(c10::ScalarType::NumOptions); ++code) {
    const auto type = static_cast<c10::ScalarType>(code);
    try {
      names.push_back(c10::getDtypeNames(type).first);
    } catch (const c10::Error&) {  // a type that Python has no name for
      names.push_back(c10::toString(type));
    }
  }
  context.tensors.set_dtype_names(std::move(names));
}

namespace {

// Whether storages on CUDA devices are blocks in the books; who watches them is told of the first.
bool watches_cuda() noexcept {
  Context* context = recording();
  if (!context) return false;
  DeviceWatch& devices = context->devices;
  if (devices.watches_cuda.load(std::memory_order_acquire)) return true;
  const auto cuda_is_used = devices.cuda_is_used.load(std::memory_order_acquire);
  if (!cuda_is_used) return false;
  cuda_is_used(*context);
  return devices.watches_cuda.load(std::memory_order_acquire);
}

// Of pinned memory that is watched; else 0.
DeviceIndex pinned_device(c10::DataPtr& data, int64_t bytes) noexcept {
  Context* context = recording();
  const auto ask = context ? context->devices.pinned_device.load(std::memory_order_acquire) : nullptr;
  return ask ? ask(&data, bytes) : DeviceIndex{0};
}

}  // namespace

StorageRef storage_of(const at::Tensor& tensor) noexcept {
  StorageRef ref;
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (!tensor.defined() || !impl->has_storage()) return ref;
  const c10::Device device = impl->device();
  if (!device.is_cpu() && !(device.is_cuda() && watches_cuda())) return ref;
  c10::StorageImpl* storage = impl->unsafe_storage().unsafeGetStorageImpl();
  if (!storage) return ref;
  c10::DataPtr& data = storage->_mutable_data_ptr_no_checks();
  if (!data.get() || storage->sym_nbytes().is_heap_allocated()) return ref;
  const auto bytes = static_cast<int64_t>(storage->sym_nbytes().as_int_unchecked());
  if (bytes == 0) return ref;
  ref.pointer = data.get();
  ref.bytes = bytes;
  if (device.is_cpu()) {
    if (is_watched(data)) return ref;
    ref.device = pinned_device(data, bytes);
    ref.foreign = ref.device == 0 && adopt(data, static_cast<size_t>(bytes)) == Watched::kForeign;
  } else {
    // Nothing is adopted there: the allocator's events tell every block, with its address.
    ref.device = static_cast<DeviceIndex>(1 + device.index());
    ref.foreign = data.get_deleter() != c10::GetAllocator(c10::DeviceType::CUDA)->raw_deleter();
  }
  return ref;
}

TensorId describe(Context& context, const at::Tensor& tensor) noexcept {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (!tensor.defined() || impl->has_symbolic_sizes_strides() || tensor.is_nested()) return {};
  TensorTable::Cache* cache = OfThread<TensorTable::Cache>::get();
  if (!cache) return {};
  const at::IntArrayRef sizes = impl->sizes();
  try {
    return context.tensors.intern(*cache, static_cast<uint8_t>(tensor.scalar_type()),
                                  {sizes.data(), sizes.size()});
  } catch (const std::bad_alloc&) {  // a tensor whose shape is not known
    return {};
  }
}

namespace {

// Calls visit(tensor) for each part of `tensor` that can have a storage.
template <typename Visit>
void for_each_part(const at::Tensor& tensor, Visit&& visit) noexcept {
  if (!tensor.defined()) return;
  if (tensor.layout() == at::kSparse) {
    const auto* sparse = static_cast<const at::SparseTensorImpl*>(tensor.unsafeGetTensorImpl());
    visit(sparse->indices());
    visit(sparse->values());
  } else {
    visit(tensor);
  }
}

void add(Context& context, EventLog::Batch& batch, EventKind kind, const at::Tensor& tensor,
         uint32_t id, uint8_t flags, const StorageRef& storage, uint64_t c) noexcept {
  const TensorId what = describe(context, tensor);
  Event& event = batch.add(kind);
  event.flags = static_cast<uint8_t>(flags | (storage.foreign ? event_flags::kForeign : 0));
  event.id = id;
  event.a = reinterpret_cast<uint64_t>(storage.pointer);
  event.b = what.value | uint64_t{storage.device} << 32;
  event.c = c;
}

}  // namespace

void add_tensor(Context& context, EventLog::Batch& batch, EventKind kind, const at::Tensor& tensor,
                uint32_t id, uint8_t flags) noexcept {
  for_each_part(tensor, [&](const at::Tensor& part) {
    const StorageRef storage = storage_of(part);
    if (!storage) return;
    add(context, batch, kind, part, id, flags, storage, static_cast<uint64_t>(storage.bytes));
  });
}

void add_related(Context& context, EventLog::Batch& batch, EventKind kind, const at::Tensor& tensor,
                 const at::Tensor& parameter, uint32_t id) noexcept {
  const StorageRef of = storage_of(parameter);
  for_each_part(tensor, [&](const at::Tensor& part) {
    const StorageRef storage = storage_of(part);
    if (!storage) return;
    add(context, batch, kind, part, id, 0, storage, reinterpret_cast<uint64_t>(of.pointer));
  });
}

}  // namespace tally::hooks
