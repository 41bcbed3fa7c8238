# SPDX-License-Identifier: Apache-2.0
# How every target of ours is made: warnings, visibility, sanitizers and names in one place.
include_guard(GLOBAL)
include(GNUInstallDirs)

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
  endif()
  # -O3 buys nothing here and costs a third of the build.
  set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
  set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
endif()
set(CMAKE_CXX_EXTENSIONS OFF)

add_library(tally_warnings INTERFACE)
# GCC 12 sees overlapping copies and bounds that are not there inside std::string (its bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(tally_warnings INTERFACE -Wno-restrict -Wno-array-bounds
    -Wno-stringop-overflow -Wno-stringop-overread)
endif()
target_compile_options(tally_warnings INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
  -Woverloaded-virtual -Wcast-qual -Wundef $<$<BOOL:${TORCHTALLY_WERROR}>:-Werror>)

add_library(tally_build INTERFACE)
# The event log steps a 16-byte word atomically; every x86-64 processor since 2006 can.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_options(tally_build INTERFACE -mcx16)
endif()
target_compile_features(tally_build INTERFACE cxx_std_20)
target_link_libraries(tally_build INTERFACE tally_warnings)
if(TORCHTALLY_SANITIZE)
  # Instrumented code makes GCC see uninitialised values inside LibTorch's headers.
  target_compile_options(tally_build INTERFACE -fsanitize=${TORCHTALLY_SANITIZE}
    -fno-omit-frame-pointer -fno-sanitize-recover=all -Wno-maybe-uninitialized)
  target_link_options(tally_build INTERFACE -fsanitize=${TORCHTALLY_SANITIZE})
endif()

# tally_add_library(<room> SOURCES <files> [LINK <targets>] [PRIVATE_LINK <targets>])
# One static library a room, called tally_<room> and torchtally::<room>. Includes are written from
# the repository's root: #include "profiler/core/event.h".
function(tally_add_library room)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_library(tally_${room} STATIC ${ARG_SOURCES})
  add_library(torchtally::${room} ALIAS tally_${room})
  set_target_properties(tally_${room} PROPERTIES POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON EXPORT_NAME ${room})
  target_include_directories(tally_${room} PUBLIC $<BUILD_INTERFACE:${TorchTally_SOURCE_DIR}>
    $<BUILD_INTERFACE:${TorchTally_SOURCE_DIR}/profiler/include>)
  target_link_libraries(tally_${room} PUBLIC ${ARG_LINK} PRIVATE ${ARG_PRIVATE_LINK}
    $<BUILD_INTERFACE:tally_build>)
endfunction()

# tally_add_test(<name> SOURCES <files> [LINK <targets>] [LABELS <labels>] [ENVIRONMENT <A=b>])
# A GoogleTest program, each of its cases one test of CTest.
function(tally_add_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;LABELS;ENVIRONMENT" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gmock GTest::gtest_main tally_build)
  target_include_directories(${name} PRIVATE ${TorchTally_SOURCE_DIR})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  # Lists of values keep their ';' only when escaped for the generated CTest file.
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS "${ARG_LABELS}" ENVIRONMENT "${ARG_ENVIRONMENT}" TIMEOUT 300)
endfunction()

# tally_embed(<target> <file> <symbol>): the file's bytes as `extern const std::string_view
# tally::embedded::<symbol>`, declared where it is used.
function(tally_embed target file symbol)
  set(output ${CMAKE_CURRENT_BINARY_DIR}/embedded_${symbol}.cpp)
  add_custom_command(OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${file} -DOUTPUT=${output} -DSYMBOL=${symbol}
      -P ${TorchTally_SOURCE_DIR}/cmake/EmbedFile.cmake
    DEPENDS ${file} ${TorchTally_SOURCE_DIR}/cmake/EmbedFile.cmake VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()

set_property(GLOBAL PROPERTY TALLY_SUMMARY "")
# tally_report(<part> <what>): one line of the table at the end of configure.
function(tally_report part what)
  string(LENGTH "${part}" length)
  math(EXPR pad "16 - ${length}")
  string(REPEAT " " ${pad} padding)
  set_property(GLOBAL APPEND PROPERTY TALLY_SUMMARY "  ${part}${padding}${what}")
endfunction()
function(tally_print_summary)
  get_property(lines GLOBAL PROPERTY TALLY_SUMMARY)
  list(JOIN lines "\n" text)
  message(STATUS "TorchTally ${PROJECT_VERSION}, what will be built:\n${text}")
endfunction()
