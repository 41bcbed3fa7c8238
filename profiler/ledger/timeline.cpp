// SPDX-License-Identifier: Apache-2.0
#include "profiler/ledger/timeline.h"

#include <algorithm>

namespace tally {

uint32_t Timeline::add(int64_t total, const Where& where) {
  if (points_.size() >= 2 * capacity_) thin();
  Point& point = points_.emplace_back();
  point.position = next_position_++;
  point.total = total;
  point.where = where;
  return point.position;
}

size_t Timeline::at_or_after(uint32_t position) const {
  const auto found = std::lower_bound(
      points_.begin(), points_.end(), position,
      [](const Point& point, uint32_t wanted) { return point.position < wanted; });
  return static_cast<size_t>(found - points_.begin());
}

void Timeline::settle(Role role, int64_t bytes, uint32_t birth, uint32_t death) {
  const auto index = static_cast<size_t>(role);
  const size_t first = at_or_after(birth);
  const size_t last = death == kForever ? points_.size() : at_or_after(death);
  // Born and gone between two kept points: it shows in neither.
  if (first == last) return;
  points_[first].difference[index] += bytes;
  if (last < points_.size()) points_[last].difference[index] -= bytes;
}

// Of each four points in a row the highest and the lowest stay, and all that are protected. The
// newest point always stays, so that every dropped point has one after it.
void Timeline::thin() {
  std::vector<Point> kept;
  kept.reserve(points_.size());
  RoleBytes carried{};
  for (size_t begin = 0; begin < points_.size(); begin += 4) {
    const size_t end = std::min(begin + 4, points_.size());
    size_t low = begin;
    size_t high = begin;
    for (size_t at = begin; at < end; ++at) {
      if (points_[at].total < points_[low].total) low = at;
      if (points_[at].total > points_[high].total) high = at;
    }
    for (size_t at = begin; at < end; ++at) {
      Point& point = points_[at];
      for (size_t role = 0; role < kRoleCount; ++role) point.difference[role] += carried[role];
      carried = {};
      if (at == low || at == high || point.is_protected || at + 1 == points_.size()) {
        kept.push_back(point);
      } else {
        carried = point.difference;
      }
    }
  }
  points_ = std::move(kept);
}

std::vector<TimelinePoint> Timeline::finish() {
  if (points_.size() > capacity_) thin();
  std::vector<TimelinePoint> result;
  result.reserve(points_.size());
  RoleBytes now{};
  for (const Point& point : points_) {
    for (size_t role = 0; role < kRoleCount; ++role) now[role] += point.difference[role];
    result.push_back({point.where.time_ns, now, point.where.phase, point.where.micro_step,
                      point.where.module, point.where.op});
  }
  points_.clear();
  next_position_ = 0;
  return result;
}

}  // namespace tally
