# SPDX-License-Identifier: Apache-2.0
# Builds the page in a copy of its sources, so that the source tree stays as it is:
#   cmake -DSOURCE= -DWORK= -DFILES=a,b -DNODE= -DNPM= -DPACKAGES=ON|OFF -P build_page.cmake
# PACKAGES=ON: only the packages, from the user's npm cache where they are in it. OFF: the page.
string(REPLACE "," ";" FILES "${FILES}")
foreach(file IN LISTS FILES)
  get_filename_component(folder "${WORK}/${file}" DIRECTORY)
  file(MAKE_DIRECTORY "${folder}")
  configure_file("${SOURCE}/${file}" "${WORK}/${file}" COPYONLY)
endforeach()

get_filename_component(node_folder "${NODE}" DIRECTORY)
set(ENV{PATH} "${node_folder}:$ENV{PATH}")

function(run what)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY "${WORK}" RESULT_VARIABLE result
    OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${output}\nThe report page cannot be built: ${what} failed. "
      "Configure with -DTORCHTALLY_WITH_WEB=OFF to build without the page.")
  endif()
endfunction()

if(PACKAGES)
  run("npm ci" "${NPM}" ci --prefer-offline --ignore-scripts --no-audit --no-fund)
  file(TOUCH "${WORK}/packages.stamp")
else()
  run("the type check" "${NODE}" node_modules/typescript/bin/tsc --noEmit)
  run("vite" "${NODE}" node_modules/vite/bin/vite.js build)
endif()
