# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts where, and the package that find_package(TorchTally) reads. The
# command line installs itself (profiler/cli).
include_guard(GLOBAL)
include(CMakePackageConfigHelpers)

set(tally_config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/TorchTally)
set(tally_installed tally_estimate tally_core)
install(FILES profiler/include/torchtally/estimate.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/torchtally)
if(TORCHTALLY_WITH_TORCH)
  list(APPEND tally_installed tally_profiler)
  install(FILES profiler/include/torchtally/profiler.h profiler/include/torchtally/checkpoint.h
      profiler/include/torchtally/testing.h
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/torchtally)
  # How a consumer finds the same LibTorch; see TorchTallyConfig.cmake.
  install(FILES cmake/TallyTorch.cmake DESTINATION ${tally_config_dir})
endif()
install(TARGETS ${tally_installed} EXPORT TorchTallyTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT TorchTallyTargets NAMESPACE torchtally:: DESTINATION ${tally_config_dir})

configure_package_config_file(cmake/TorchTallyConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/TorchTallyConfig.cmake INSTALL_DESTINATION ${tally_config_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/TorchTallyConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/TorchTallyConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/TorchTallyConfigVersion.cmake DESTINATION ${tally_config_dir})

install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
foreach(file LICENSE README.md CHANGELOG.md)
  install(FILES ${file} DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
endforeach()

# Their tests need these rules.
if(TORCHTALLY_TESTS AND PROJECT_IS_TOP_LEVEL)
  add_subdirectory(tests/consumer)
endif()
