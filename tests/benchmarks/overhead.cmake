# SPDX-License-Identifier: Apache-2.0
add_executable(overhead_benchmark overhead.cpp)
target_link_libraries(overhead_benchmark PRIVATE torchtally::profiler tally_build)
tally_use_torch(overhead_benchmark)
