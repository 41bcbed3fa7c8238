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

namespace {

// A number as it was counted; 17 digits are exact.
std::string number(double value) { return fmt::format("{:.17g}", value); }

std::string executed_cells(const std::optional<analysis::Executed>& executed) {
  std::string out;
  if (!executed) return std::string(4 + kFlopFormatCount, ',');
  out += "," + number(executed->tensor_flops) + "," + number(executed->scalar_flops);
  for (size_t i = 0; i < kFlopFormatCount; ++i) {
    out += ",";
    if (executed->by_format.empty() && executed->flops() > 0) continue;  // an old recording
    out += number(executed->by_format.of(static_cast<FlopFormat>(i)));
  }
  return out + "," + number(executed->device_seconds) + "," + number(executed->dram_bytes);
}

}  // namespace

std::string render_flops_csv(const analysis::Summary& summary) {
  std::string out =
      "rank,step,phase,module,operator,kernel,calls,flops,torch,elementwise,seconds,tensor,scalar";
  for (const Word& word : kFlopFormatWords) out += fmt::format(",{}", word.key);
  out += ",device_seconds,dram_bytes\n";
  const std::string rank = summary.rank < 0 ? "" : fmt::format("{}", summary.rank);
  for (const analysis::OperatorRow& row : summary.step().operators) {
    out += fmt::format("{},{},{},{},{},,{},{},{},{},{}", rank, summary.step().index, key(row.phase),
                       csv_cell(row.module), csv_cell(row.op), row.calls, number(row.flops),
                       number(row.torch_flops), number(row.elementwise_flops), number(row.seconds));
    out += executed_cells(row.executed) + "\n";
  }
  for (const analysis::KernelRow& row : summary.kernels) {
    out += fmt::format("{},{},{},{},{},{},{},,,,", rank, summary.kernels_step, key(row.phase),
                       csv_cell(row.module), csv_cell(row.op), csv_cell(row.kernel), row.calls);
    out += executed_cells(row.executed) + "\n";
  }
  return out;
}

}  // namespace tally::reports
