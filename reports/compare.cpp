// SPDX-License-Identifier: Apache-2.0
#include "reports/compare.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "profiler/core/units.h"
#include "reports/escape.h"
#include "reports/names.h"
#include "reports/palette.h"

namespace tally::embedded {
extern const std::string_view compare_style;  // compare.css
}

namespace tally::reports {
namespace {

using analysis::Change;
using analysis::Comparison;
using analysis::format_amount;
using Json = nlohmann::ordered_json;

std::string percent(double from, double to) {
  if (from == to) return "0 %";
  if (from == 0) return "new";
  if (to == 0) return "gone";
  return fmt::format("{:+.1f} %", 100 * (to - from) / from);
}
std::string percent(const Change& row) { return percent(row.values.front(), row.values.back()); }

std::string title_of(const Change& row, const char* without) {
  return row.title.empty() ? without : clean(row.title);
}

// Those of which some run differs from the first.
std::vector<Change> changed(const std::vector<Change>& rows) {
  std::vector<Change> out;
  for (const Change& row : rows) {
    const bool differs = std::any_of(row.values.begin(), row.values.end(),
                                     [&](double v) { return v != row.values.front(); });
    if (differs) out.push_back(row);
  }
  return out;
}

std::string text_rows(const std::vector<Change>& rows, size_t most, const char* without) {
  std::string out;
  for (size_t i = 0; i < std::min(rows.size(), most); ++i) {
    const Change& row = rows[i];
    std::string line = fit(title_of(row, without), 34);
    for (const double value : row.values) line += fit(format_amount(value, row.unit), 14, true);
    line += fit(format_amount(row.change(), row.unit, true), 14, true);
    out += line + fit(percent(row), 12, true) + "\n";
  }
  if (rows.size() > most) out += fmt::format("... and {} more\n", rows.size() - most);
  return out;
}

Json json_rows(const std::vector<Change>& rows) {
  Json out = Json::array();
  const auto number = [](double value) -> Json {
    if (value == std::floor(value) && std::abs(value) < 0x1p53) return static_cast<int64_t>(value);
    return value;
  };
  for (const Change& row : rows) {
    Json values = Json::array();
    for (const double value : row.values) values.push_back(number(value));
    out.push_back(
        {{"key", row.key},
         {"title", row.title},
         {"unit", row.unit},
         {"values", std::move(values)},
         {"change", number(row.change())},
         {"relative", row.values.front() != 0 ? Json(row.change() / row.values.front()) : Json()}});
  }
  return out;
}

std::string raw(double value, const std::string& unit) {
  if (unit == "seconds") return fmt::format("{:.6f} s", value);
  return format_integer(std::llround(value)) + (unit == "FLOP" ? " FLOP" : " bytes");
}

// A bar to the right for what grew, to the left for what shrank.
std::string change_bar(const Change& row, double most) {
  const double share = most > 0 ? 50 * std::abs(row.change()) / most : 0;
  return fmt::format("<td class=\"bar\"><i style=\"width:{:.2f}%;{}:50%\"></i></td>", share,
                     row.change() < 0 ? "right" : "left");
}

std::string swatch(const Change& row) {
  const auto role = role_of(row.key);
  if (!role) return "";
  const RoleColor c = color(*role);
  return fmt::format("<i class=\"swatch\" style=\"--light:#{:06x};--dark:#{:06x}\"></i>", c.light,
                     c.dark);
}

std::string html_table(const Comparison& c, const char* id, const char* title, const char* take,
                       const std::vector<Change>& rows, const char* without, bool with_swatches,
                       size_t most_rows) {
  if (rows.empty()) return "";
  double most = 0;
  for (const Change& row : rows) most = std::max(most, std::abs(row.change()));
  if (rows.front().unit != rows.back().unit) most = 0;  // totals: bytes beside FLOPs
  std::string out = fmt::format(
      "<section aria-labelledby=\"{0}\"><h2 id=\"{0}\">{1}</h2><p class=\"take\">{2}</p>"
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{1}, a table\"><table>"
      "<thead><tr><th scope=\"col\">{1}</th>",
      id, title, take);
  for (size_t i = 0; i < c.runs.size(); ++i) {
    out += fmt::format("<th scope=\"col\" class=\"num\">{}</th>",
                       i < 26 ? std::string(1, static_cast<char>('A' + i)) : fmt::format("{}", i));
  }
  const std::string last =
      c.runs.size() > 2 && c.runs.size() <= 26
          ? fmt::format(", A to {}", static_cast<char>('A' + c.runs.size() - 1))
          : "";
  out += fmt::format(
      "<th scope=\"col\" class=\"num\">change{}</th><th scope=\"col\" class=\"num\">in %</th>",
      last);
  if (most > 0) out += "<th scope=\"col\"><span class=\"hidden\">change as a bar</span></th>";
  out += "</tr></thead><tbody>";
  for (size_t i = 0; i < std::min(rows.size(), most_rows); ++i) {
    const Change& row = rows[i];
    out += fmt::format("<tr><th scope=\"row\">{}<bdi>{}</bdi></th>",
                       with_swatches ? swatch(row) : "", escaped(title_of(row, without)));
    for (size_t k = 0; k < row.values.size(); ++k) {
      const double value = row.values[k];
      out += fmt::format("<td class=\"num\" title=\"{}\">{}", raw(value, row.unit),
                         format_amount(value, row.unit));
      // Of the runs between the first and the last, whose change has columns of its own.
      if (k > 0 && k + 1 < row.values.size()) {
        out += fmt::format("<small>{}</small>", percent(row.values.front(), value));
      }
      out += "</td>";
    }
    const char* tone = row.change() > 0 ? "grew" : row.change() < 0 ? "shrank" : "same";
    out += fmt::format("<td class=\"num {}\" title=\"{}\">{}</td><td class=\"num\">{}</td>", tone,
                       raw(row.change(), row.unit), format_amount(row.change(), row.unit, true),
                       percent(row));
    if (most > 0) out += change_bar(row, most);
    out += "</tr>";
  }
  out += "</tbody></table></div>";
  if (rows.size() > most_rows) {
    out += fmt::format("<p class=\"more\">{} more changed less; --format json has all.</p>",
                       rows.size() - most_rows);
  }
  return out + "</section>";
}

}  // namespace

std::string render_compare_text(const Comparison& c, size_t rows) {
  std::string out = clean(c.headline) + "\n\n";
  for (size_t i = 0; i < c.runs.size(); ++i) {
    out += fmt::format("{}  {}, step {}, {}\n",
                       i == 0                  ? "from"
                       : i + 1 < c.runs.size() ? "    "
                                               : "to  ",
                       clean(c.runs[i].recording), c.runs[i].step, clean(c.runs[i].device));
  }
  const auto section = [&](const std::string& title, const std::vector<Change>& changes,
                           size_t most, const char* without) {
    out += "\n" + title + "\n";
    out += changes.empty() ? "nothing\n" : text_rows(changes, most, without);
  };
  const std::string at = fmt::format(", alive at the {}", title(c.at));
  section("Totals", c.totals, c.totals.size(), "");
  section("By role" + at, c.roles, c.roles.size(), "");
  section("By module" + at + ": what changed most", changed(c.modules), rows, "(no module)");
  section("By operator" + at + ": what changed most", changed(c.operators), rows, "(no operator)");
  section("FLOPs by operator: what changed most", changed(c.work), rows, "(no operator)");
  if (!c.executed.empty()) {
    section("FLOPs executed, by number format", c.executed, c.executed.size(), "");
  }
  return out;
}

std::string render_compare_json(const Comparison& c) {
  Json runs = Json::array();
  for (const auto& run : c.runs) {
    runs.push_back({{"recording", run.recording},
                    {"step", run.step},
                    {"device", run.device},
                    {"headline", run.headline}});
  }
  const Json out{{"schema", 1},
                 {"headline", c.headline},
                 {"at", key(c.at)},
                 {"runs", std::move(runs)},
                 {"totals", json_rows(c.totals)},
                 {"roles", json_rows(c.roles)},
                 {"modules", json_rows(c.modules)},
                 {"operators", json_rows(c.operators)},
                 {"work", json_rows(c.work)},
                 {"executed", json_rows(c.executed)}};
  return out.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string render_compare_html(const Comparison& c) {
  constexpr size_t kRows = 100;
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n<meta name=\"color-scheme\" content=\"light dark\">\n"
      "<title>TorchTally: {}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n"
      "<h1>{}</h1>\n<ol class=\"runs\">",
      escaped(c.runs.front().recording + " and " + c.runs.back().recording),
      embedded::compare_style, escaped(c.headline));
  for (size_t i = 0; i < c.runs.size(); ++i) {
    const auto& run = c.runs[i];
    out += fmt::format(
        "<li><b>{}</b><div><bdi>{}</bdi>, step {}, <bdi>{}</bdi><p><bdi>{}</bdi></p></div></li>",
        i < 26 ? std::string(1, static_cast<char>('A' + i)) : fmt::format("{}", i),
        escaped(run.recording), run.step, escaped(run.device), escaped(run.headline));
  }
  out += "</ol>\n";
  const std::string alive = fmt::format("Alive at the {}.", title(c.at));
  out += html_table(c, "totals", "Totals", "Of the step that each recording explains.", c.totals,
                    "", false, kRows);
  out += html_table(c, "roles", "By role", alive.c_str(), c.roles, "", true, kRows);
  out += html_table(c, "modules", "By module", (alive + " What changed most comes first.").c_str(),
                    changed(c.modules), "no module", false, kRows);
  out +=
      html_table(c, "operators", "By operator",
                 (alive + " By the operator that made it; what changed most comes first.").c_str(),
                 changed(c.operators), "no operator", false, kRows);
  out += html_table(c, "work", "FLOPs", "Of the step, by operator; what changed most comes first.",
                    changed(c.work), "no operator", false, kRows);
  out += html_table(c, "executed", "Executed", "By hardware counters, by number format.",
                    c.executed, "", false, kRows);
  out +=
      "<footer>TorchTally. MiB and GiB are binary; FLOP counts are decimal. Exact numbers are in "
      "the cells' titles.</footer>\n</main>\n</body>\n</html>\n";
  return out;
}

}  // namespace tally::reports
