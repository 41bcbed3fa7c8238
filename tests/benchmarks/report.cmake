# SPDX-License-Identifier: Apache-2.0
# Included by tests/benchmarks/CMakeLists.txt: what a report of a very long recording costs.
add_executable(report_benchmark ${CMAKE_CURRENT_LIST_DIR}/report_benchmark.cpp)
target_link_libraries(report_benchmark PRIVATE tally_ledger tally_recording tally_build)
target_include_directories(report_benchmark PRIVATE ${TorchTally_SOURCE_DIR})
target_compile_definitions(report_benchmark PRIVATE TALLY_PROGRAM="$<TARGET_FILE:torchtally>")
add_dependencies(report_benchmark torchtally)
