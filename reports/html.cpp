// SPDX-License-Identifier: Apache-2.0
#include "reports/html.h"

#include <string_view>

#include <fmt/format.h>

#include "profiler/core/error.h"
#include "reports/escape.h"
#include "reports/page_data.h"

namespace tally::embedded {
extern const std::string_view report_page;  // reports/web/CMakeLists.txt
}

namespace tally::reports {
namespace {

// Whatever a value holds, no later placeholder is looked for inside it: the page is copied once,
// from one placeholder to the next.
class Page {
 public:
  explicit Page(std::string_view page) : rest_(page) {}
  void fill(std::string_view placeholder, std::string_view value) {
    const size_t at = rest_.find(placeholder);
    if (at == std::string_view::npos) {
      throw Error("the report page was built without its place for {}", placeholder);
    }
    out_.append(rest_.substr(0, at)).append(value);
    rest_.remove_prefix(at + placeholder.size());
  }
  bool has(std::string_view placeholder) const {
    return rest_.find(placeholder) != std::string_view::npos;
  }
  std::string finish() && { return std::move(out_.append(rest_)); }

 private:
  std::string out_;
  std::string_view rest_;
};

// Of the data of all ranks: mail refuses what is much larger.
constexpr size_t kMostData = size_t{8} << 20;

std::string elements(const analysis::Summary& summary, const std::string& suffix) {
  const PageData data = page_data(summary);
  return fmt::format(
      "<script type=\"application/json\" id=\"tally-meta{0}\">{1}</script>\n"
      "<script type=\"text/plain\" id=\"tally-columns{0}\">{2}</script>\n",
      suffix, data.meta, data.columns);
}

std::string program_of(const analysis::Summary& summary) {
  if (summary.command.empty()) return "a training step";
  const std::string& program = summary.command.front();
  return program.substr(program.find_last_of('/') + 1);
}

}  // namespace

std::string render_html(const analysis::Summary& summary) {
  return render_html(std::vector{summary}, 0);
}

std::string render_html(const std::vector<analysis::Summary>& ranks, size_t explained) {
  const analysis::Summary& summary = ranks.at(explained);
  Page page(embedded::report_page);
  page.fill("<!--tally:title-->", escaped("TorchTally: " + program_of(summary)));
  page.fill("<!--tally:headline-->", escaped(summary.headline));
  if (!page.has("<!--tally:data-->")) return std::move(page).finish();  // built without the page
  std::string data = elements(summary, "");
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (i == explained) continue;
    const std::string more = elements(ranks[i], fmt::format("-{}", ranks[i].rank));
    if (data.size() + more.size() > kMostData) continue;
    data += more;
  }
  page.fill("<!--tally:data-->", data);
  return std::move(page).finish();
}

}  // namespace tally::reports
