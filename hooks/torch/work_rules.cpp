// SPDX-License-Identifier: Apache-2.0
#include "hooks/torch/work_rules.h"

namespace tally::hooks {

WorkRule find_work_rule(std::string_view) noexcept { return {}; }
Work count_work(const WorkRule&, c10::ArrayRef<const c10::IValue>) noexcept { return {}; }

}  // namespace tally::hooks
