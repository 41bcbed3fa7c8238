# SPDX-License-Identifier: Apache-2.0
# torchtally_torch: LibTorch's CPU half as own imported targets. find_package(Torch) of a CUDA build
# stops without the CUDA Toolkit, which nothing here needs.
include_guard(GLOBAL)

set(tally_torch_candidates "${TORCHTALLY_TORCH}" "$ENV{TORCHTALLY_TORCH}")
foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND tally_torch_candidates ${prefix} ${prefix}/libtorch ${prefix}/torch)
endforeach()
# pip builds in an isolated environment, whose Python finds the installed torch only with -I.
if(SKBUILD AND Python_EXECUTABLE)
  execute_process(COMMAND ${Python_EXECUTABLE} -I -c "import importlib.util
spec = importlib.util.find_spec('torch')
print(list(spec.submodule_search_locations)[0] if spec else '', end='')"
    OUTPUT_VARIABLE tally_torch_of_pip ERROR_QUIET)
  list(APPEND tally_torch_candidates "${tally_torch_of_pip}")
endif()
list(APPEND tally_torch_candidates ${TorchTally_SOURCE_DIR}/build/torch)
set(tally_torch_dir "")
foreach(candidate IN LISTS tally_torch_candidates)
  if(candidate AND EXISTS "${candidate}/lib/libtorch_cpu.so" AND EXISTS "${candidate}/include/torch")
    get_filename_component(tally_torch_dir "${candidate}" REALPATH)
    break()
  endif()
endforeach()
if(NOT tally_torch_dir)
  message(FATAL_ERROR "LibTorch not found. Set TORCHTALLY_TORCH to a folder with include/ and lib/ "
    "(a LibTorch download, or `python -c 'import torch; print(torch.__path__[0])'`), "
    "run scripts/setup, or configure with -DTORCHTALLY_WITH_TORCH=OFF.")
endif()
set(TORCHTALLY_TORCH_DIR "${tally_torch_dir}" CACHE INTERNAL "LibTorch that is used")

file(STRINGS "${tally_torch_dir}/include/torch/headeronly/version.h" tally_version_lines
  REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
set(TORCHTALLY_TORCH_VERSION "")
foreach(line IN LISTS tally_version_lines)
  string(REGEX MATCH "[0-9]+$" number "${line}")
  list(APPEND TORCHTALLY_TORCH_VERSION ${number})
endforeach()
list(JOIN TORCHTALLY_TORCH_VERSION "." TORCHTALLY_TORCH_VERSION)
if(TORCHTALLY_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "TorchTally needs LibTorch 2.11 or newer, found '${TORCHTALLY_TORCH_VERSION}' in ${tally_torch_dir}")
endif()

if(NOT TARGET torchtally_torch)
  foreach(library c10 torch_cpu)
    add_library(torchtally_${library} SHARED IMPORTED GLOBAL)
    set_target_properties(torchtally_${library} PROPERTIES
      IMPORTED_LOCATION "${tally_torch_dir}/lib/lib${library}.so")
  endforeach()
  add_library(torchtally_torch INTERFACE IMPORTED GLOBAL)
  target_include_directories(torchtally_torch SYSTEM INTERFACE "${tally_torch_dir}/include"
    "${tally_torch_dir}/include/torch/csrc/api/include")
  # NDEBUG decides the layout of at::RecordFunction: without it the headers do not match the
  # shipped library. Also in Debug builds.
  target_compile_definitions(torchtally_torch INTERFACE NDEBUG _GLIBCXX_USE_CXX11_ABI=1)
  # LibTorch's include folder brings an fmt of its own, newer than the system's and without a
  # library: files that see LibTorch use it as a header.
  target_compile_definitions(torchtally_torch INTERFACE FMT_HEADER_ONLY=1)
  # --no-as-needed: LibTorch registers its operators in static constructors.
  target_link_libraries(torchtally_torch INTERFACE -Wl,--no-as-needed torchtally_torch_cpu
    torchtally_c10 -Wl,--as-needed Threads::Threads)
  target_link_options(torchtally_torch INTERFACE "-Wl,-rpath,${tally_torch_dir}/lib")
endif()
# tally_use_torch(<target>): links LibTorch and uses the precompiled header of hooks/torch, which
# asks for the same code generation flags everywhere.
function(tally_use_torch target)
  # CMake gives programs -fPIE, which the header does not fit.
  target_compile_options(${target} PRIVATE -fPIC)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_link_libraries(${target} PRIVATE torchtally_torch)
  target_precompile_headers(${target} REUSE_FROM tally_torch_pch)
endfunction()

tally_report("LibTorch" "${TORCHTALLY_TORCH_VERSION} in ${tally_torch_dir}")
