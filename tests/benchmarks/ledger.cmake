# SPDX-License-Identifier: Apache-2.0
# Included by tests/benchmarks/CMakeLists.txt: what an event costs, from the hook to the books.
add_executable(ledger_benchmark ${CMAKE_CURRENT_LIST_DIR}/ledger_benchmark.cpp)
target_link_libraries(ledger_benchmark PRIVATE tally_ledger benchmark::benchmark tally_build)
target_include_directories(ledger_benchmark PRIVATE ${TorchTally_SOURCE_DIR})
