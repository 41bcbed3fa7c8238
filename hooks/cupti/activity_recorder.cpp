// SPDX-License-Identifier: Apache-2.0
#include "hooks/cupti/activity_recorder.h"

#include <cstdlib>
#include <utility>

namespace tally::hooks::cupti {
namespace {

constexpr size_t kBufferBytes = 4 << 20;
constexpr size_t kMostBuffers = 64;
// torch.profiler uses CUSTOM0 and CUSTOM1.
constexpr auto kOurIds = CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM2;

std::atomic<ActivityRecorder*> recorder_of_process{nullptr};  // the callbacks carry no pointer

void CUPTIAPI ignore(void*, CUpti_CallbackDomain, CUpti_CallbackId, const void*) {}

}  // namespace

std::string ActivityRecorder::start() {
  ActivityRecorder* none = nullptr;
  if (!recorder_of_process.compare_exchange_strong(none, this)) {
    return "another recording of kernels runs in this process";
  }
  // The place first: only then it is sure that nobody else's buffers are touched.
  const char* call = "cuptiSubscribe_v2";
  CUptiResult result = subscription_.take(&ignore, nullptr);
  if (result == CUPTI_SUCCESS) {
    call = "cuptiActivityRegisterCallbacks";
    result = api_.cuptiActivityRegisterCallbacks(&on_buffer_wanted, &on_buffer_full);
  }
  // Records of external ids come only while calls of an API are recorded as well.
  for (const CUpti_ActivityKind kind :
       {CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION, CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
        CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET, CUPTI_ACTIVITY_KIND_MEMORY2,
        CUPTI_ACTIVITY_KIND_RUNTIME, CUPTI_ACTIVITY_KIND_DRIVER}) {
    if (result != CUPTI_SUCCESS) break;
    call = "cuptiActivityEnable";
    result = api_.cuptiActivityEnable(kind);
    if (result == CUPTI_SUCCESS) enabled_.push_back(kind);
  }
  if (result == CUPTI_SUCCESS) return "";
  stop();
  return subscription_.explain(result, call);
}

void ActivityRecorder::push_op(uint64_t op) {
  api_.cuptiActivityPushExternalCorrelationId(kOurIds, op);
}
void ActivityRecorder::pop_op() {
  uint64_t last = 0;
  api_.cuptiActivityPopExternalCorrelationId(kOurIds, &last);
}

void CUPTIAPI ActivityRecorder::on_buffer_wanted(uint8_t** buffer, size_t* bytes,
                                                 size_t* most_records) {
  *buffer = nullptr;
  *bytes = *most_records = 0;
  ActivityRecorder* self = recorder_of_process.load();
  if (!self) return;
  {
    const std::lock_guard lock(self->mutex_);
    if (self->buffers_ >= kMostBuffers) {
      ++self->report_.refused_buffers;
      return;
    }
    ++self->buffers_;
  }
  *buffer = static_cast<uint8_t*>(std::aligned_alloc(8, kBufferBytes));
  if (*buffer) *bytes = kBufferBytes;
}

void CUPTIAPI ActivityRecorder::on_buffer_full(CUcontext context, uint32_t stream, uint8_t* buffer,
                                               size_t, size_t valid_bytes) {
  if (ActivityRecorder* self = recorder_of_process.load()) {
    self->parse(buffer, valid_bytes);
    size_t dropped = 0;  // asked without our lock: CUPTI's is taken inside
    const bool knows =
        self->api_.cuptiActivityGetNumDroppedRecords(context, stream, &dropped) == CUPTI_SUCCESS;
    const std::lock_guard lock(self->mutex_);
    if (knows) self->report_.dropped += dropped;
    --self->buffers_;
  }
  std::free(buffer);
}

void ActivityRecorder::parse(uint8_t* buffer, size_t valid_bytes) {
  CUpti_Activity* record = nullptr;
  while (valid_bytes > 0 &&
         api_.cuptiActivityGetNextRecord(buffer, valid_bytes, &record) == CUPTI_SUCCESS && record) {
    const std::lock_guard lock(mutex_);
    add(record);
  }
}

void ActivityRecorder::add(const CUpti_Activity* record) {
  switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: {
      const auto* r = reinterpret_cast<const CUpti_ActivityExternalCorrelation*>(record);
      if (r->externalKind == kOurIds) op_of_[r->correlationId] = r->externalId;
      break;
    }
    case CUPTI_ACTIVITY_KIND_KERNEL:
    case CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL: {
      const auto* r = reinterpret_cast<const CUpti_ActivityKernel10*>(record);
      report_.kernels.push_back({r->name ? r->name : "", r->start, r->end, r->deviceId, r->streamId,
                                 r->correlationId, 0});
      break;
    }
    case CUPTI_ACTIVITY_KIND_MEMORY2: {
      const auto* r = reinterpret_cast<const CUpti_ActivityMemory4*>(record);
      report_.memory.push_back(
          {r->memoryOperationType == CUPTI_ACTIVITY_MEMORY_OPERATION_TYPE_RELEASE, r->address,
           r->bytes, r->deviceId, r->correlationId, 0});
      break;
    }
    case CUPTI_ACTIVITY_KIND_MEMCPY: {
      const auto* r = reinterpret_cast<const CUpti_ActivityMemcpy6*>(record);
      report_.copies.push_back({r->bytes, r->start, r->end, r->correlationId, false, 0});
      break;
    }
    case CUPTI_ACTIVITY_KIND_MEMSET: {
      const auto* r = reinterpret_cast<const CUpti_ActivityMemset4*>(record);
      report_.copies.push_back({r->bytes, r->start, r->end, r->correlationId, true, 0});
      break;
    }
    case CUPTI_ACTIVITY_KIND_RUNTIME:
    case CUPTI_ACTIVITY_KIND_DRIVER:
      break;  // only carry the ids
    default:
      ++report_.unknown;
  }
}

ActivityRecorder::Report ActivityRecorder::stop() {
  for (const CUpti_ActivityKind kind : enabled_) api_.cuptiActivityDisable(kind);
  if (!enabled_.empty()) api_.cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  enabled_.clear();
  subscription_.give_back();
  ActivityRecorder* self = this;
  recorder_of_process.compare_exchange_strong(self, nullptr);
  const std::lock_guard lock(mutex_);
  const auto join = [this](auto& records) {
    for (auto& record : records) {
      if (const auto op = op_of_.find(record.correlation); op != op_of_.end())
        record.op = op->second;
    }
  };
  join(report_.kernels);
  join(report_.memory);
  join(report_.copies);
  op_of_.clear();
  return std::exchange(report_, {});
}

}  // namespace tally::hooks::cupti
