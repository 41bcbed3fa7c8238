// SPDX-License-Identifier: Apache-2.0
#include "reports/csv.h"

#include <fmt/format.h>

#include "profiler/analysis/alive.h"
#include "profiler/core/csv.h"

namespace tally::reports {

std::string render_csv(const analysis::Summary& summary) {
  std::string out =
      "rank,step,device,mark,micro_step,role,module,operator,name,dtype,shape,phase,saved,count,"
      "bytes,source\n";
  const analysis::DeviceStep* device = summary.device_step();
  const analysis::MarkSummary* mark = summary.mark();
  if (!device || !mark) return out;
  const std::string before = fmt::format(
      "{},{},{},{},{},", summary.rank < 0 ? "" : fmt::format("{}", summary.rank),
      summary.step().index, csv_cell(device->device), key(mark->mark), mark->micro_step);
  for (const analysis::AliveRow& row : alive_rows(*device, *mark)) {
    out += before;
    out += key(row.role);
    for (const std::string* text : {&row.module, &row.op, &row.name, &row.dtype, &row.shape}) {
      out += "," + csv_cell(*text);
    }
    out +=
        fmt::format(",{},{},{},{},{}\n", row.phase ? key(*row.phase) : "",
                    row.phase ? (row.saved ? "1" : "0") : "",
                    row.count ? fmt::format("{}", row.count) : "", row.bytes, csv_cell(row.source));
  }
  return out;
}

}  // namespace tally::reports
