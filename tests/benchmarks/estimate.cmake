# SPDX-License-Identifier: Apache-2.0
# Included by tests/benchmarks/CMakeLists.txt: how fast the estimator answers.
add_executable(estimate_benchmark ${CMAKE_CURRENT_LIST_DIR}/estimate_benchmark.cpp)
target_link_libraries(estimate_benchmark PRIVATE tally_estimate benchmark::benchmark tally_build)
if(TARGET torchtally)
  target_compile_definitions(estimate_benchmark PRIVATE TALLY_PROGRAM="$<TARGET_FILE:torchtally>")
  add_dependencies(estimate_benchmark torchtally)
endif()
