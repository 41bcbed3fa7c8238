# SPDX-License-Identifier: Apache-2.0
add_executable(overhead_benchmark overhead.cpp)
target_link_libraries(overhead_benchmark PRIVATE torchtally::profiler tally_build)
tally_use_torch(overhead_benchmark)

# On the virtual card: what an event of the CUDA allocator costs, with no device time in it.
if(TALLY_VIRTUAL_GPU)
  add_executable(cuda_event_benchmark cuda_events.cpp)
  target_link_libraries(cuda_event_benchmark PRIVATE torchtally::profiler tally_build)
  tally_link_virtual_gpu(cuda_event_benchmark)
  tally_use_torch(cuda_event_benchmark)
endif()
