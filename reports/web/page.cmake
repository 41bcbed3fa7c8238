# SPDX-License-Identifier: Apache-2.0
# Included by reports/CMakeLists.txt: builds the report page and embeds it in tally_reports. Without
# Node, or with TORCHTALLY_WITH_WEB=OFF, a page that says so is embedded instead.
set(tally_web_source ${CMAKE_CURRENT_LIST_DIR})
set(tally_web_work ${CMAKE_CURRENT_BINARY_DIR}/web)  # sources are copied here, packages land here

set(tally_web_packages .npmrc package.json package-lock.json)
set(tally_web_files
  index.html
  tsconfig.json
  vite.config.ts
  src/alive/alive.tsx
  src/alive/rows.ts
  src/alive/table.tsx
  src/alive/tiles.ts
  src/alive/treemap.tsx
  src/answer.tsx
  src/app.tsx
  src/canvas.ts
  src/data/columns.ts
  src/data/layout.ts
  src/data/run.ts
  src/data/types.ts
  src/executed.tsx
  src/flops.tsx
  src/format.ts
  src/kernels.tsx
  src/main.tsx
  src/pyramid.ts
  src/ranks.tsx
  src/roofline.tsx
  src/styles/alive.css
  src/styles/base.css
  src/styles/phone.css
  src/styles/print.css
  src/styles/sections.css
  src/styles/tables.css
  src/styles/timeline.css
  src/theory/books.tsx
  src/theory/theory.tsx
  src/timeline/marks-chart.tsx
  src/timeline/overview.tsx
  src/timeline/plot.ts
  src/timeline/pointers.ts
  src/timeline/readout.tsx
  src/timeline/timeline.tsx
  src/timeline/window.ts
  src/trend.tsx
  src/ui.tsx
  src/unknown.tsx
  src/verdicts.tsx)

# Sets TALLY_NO_PAGE_REASON to why the page cannot be built, or to nothing.
function(tally_find_node)
  set(reason "")
  if(NOT TORCHTALLY_WITH_WEB)
    set(reason "TORCHTALLY_WITH_WEB is OFF")
  else()
    find_program(TORCHTALLY_NODE node HINTS ${CMAKE_BINARY_DIR}/venv/bin DOC "Node, version 20 or newer")
    find_program(TORCHTALLY_NPM npm HINTS ${CMAKE_BINARY_DIR}/venv/bin DOC "npm, beside Node")
    if(NOT TORCHTALLY_NODE OR NOT TORCHTALLY_NPM)
      set(reason "Node and npm were not found")
    else()
      execute_process(COMMAND ${TORCHTALLY_NODE} --version OUTPUT_VARIABLE version ERROR_QUIET
        OUTPUT_STRIP_TRAILING_WHITESPACE)
      string(REGEX REPLACE "^v" "" version "${version}")
      if(version VERSION_LESS 20)
        set(reason "it needs Node 20 or newer, ${TORCHTALLY_NODE} is '${version}'")
      endif()
    endif()
  endif()
  set(TALLY_NO_PAGE_REASON "${reason}" PARENT_SCOPE)
  set(TALLY_NODE_VERSION "${version}" PARENT_SCOPE)
endfunction()

tally_find_node()
# Where tests find the built page and its packages; empty when there is no page.
set(TALLY_WEB_WORK "" CACHE INTERNAL "")
if(TALLY_NO_PAGE_REASON)
  configure_file(${tally_web_source}/no_page.html.in ${tally_web_work}/no_page.html @ONLY)
  tally_embed(tally_reports ${tally_web_work}/no_page.html report_page)
  tally_report("reports/web" "no: ${TALLY_NO_PAGE_REASON}")
else()
  set(TALLY_WEB_WORK ${tally_web_work} CACHE INTERNAL "")
  list(TRANSFORM tally_web_packages PREPEND ${tally_web_source}/ OUTPUT_VARIABLE tally_web_package_paths)
  list(TRANSFORM tally_web_files PREPEND ${tally_web_source}/ OUTPUT_VARIABLE tally_web_paths)
  list(JOIN tally_web_packages "," tally_web_packages)
  list(JOIN tally_web_files "," tally_web_files)
  set(tally_web_run ${CMAKE_COMMAND} -DSOURCE=${tally_web_source} -DWORK=${tally_web_work}
    -DNODE=${TORCHTALLY_NODE} -DNPM=${TORCHTALLY_NPM})
  set(tally_web_script ${tally_web_source}/build_page.cmake)
  add_custom_command(OUTPUT ${tally_web_work}/packages.stamp
    COMMAND ${tally_web_run} -DFILES=${tally_web_packages} -DPACKAGES=ON -P ${tally_web_script}
    DEPENDS ${tally_web_package_paths} ${tally_web_script}
    COMMENT "Fetching the packages of the report page" VERBATIM)
  add_custom_command(OUTPUT ${tally_web_work}/dist/index.html
    COMMAND ${tally_web_run} -DFILES=${tally_web_files} -DPACKAGES=OFF -P ${tally_web_script}
    DEPENDS ${tally_web_paths} ${tally_web_script} ${tally_web_work}/packages.stamp
    COMMENT "Building the report page" VERBATIM)
  tally_embed(tally_reports ${tally_web_work}/dist/index.html report_page)
  tally_report("reports/web" "the page, with Node ${TALLY_NODE_VERSION}")
endif()
