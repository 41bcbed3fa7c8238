// SPDX-License-Identifier: Apache-2.0
// The Summary in the trace event format of Chromium, which Perfetto and chrome://tracing open:
// bytes by role as counters, steps, micro-steps and phases as slices, marks as instants, and the
// operator and module of each allocation and free.
#pragma once

#include <string>

#include "profiler/analysis/summary.h"

namespace tally::reports {

// `beside`: the text of another trace in that format, such as Kineto's, whose events are kept and
// whose clock is used; "": none. Throws Error when it is no trace, or when the recording does not
// say when it began.
std::string render_chrome_trace(const analysis::Summary& summary, const std::string& beside = "");

}  // namespace tally::reports
