// SPDX-License-Identifier: Apache-2.0
#include "profiler/ledger/timeline.h"

#include <algorithm>

namespace tally {

uint32_t Timeline::add(int64_t total, const Where& where) {
  if (points_.size() >= thin_at_) thin();
  Point& point = points_.emplace_back();
  point.position = next_position_++;
  point.total = total;
  point.where = where;
  const uint32_t position = point.position;
  if (stretch_ > 2) close_last_but_newest();
  return position;
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

// Of the open stretch without the newest point, what is neither highest, lowest nor protected goes:
// at most a few points are looked at, because that was done at the event before as well.
void Timeline::close_last_but_newest() {
  const size_t newest = points_.size() - 1;
  size_t low = open_;
  size_t high = open_;
  for (size_t at = open_; at < newest; ++at) {
    if (points_[at].total < points_[low].total) low = at;
    if (points_[at].total > points_[high].total) high = at;
  }
  size_t kept = open_;
  for (size_t at = open_; at < newest; ++at) {
    if (at == low || at == high || points_[at].is_protected) {
      if (kept != at) points_[kept] = points_[at];
      ++kept;
      continue;
    }
    for (size_t role = 0; role < kRoleCount; ++role) {
      points_[at + 1].difference[role] += points_[at].difference[role];
    }
  }
  if (kept != newest) {
    points_[kept] = points_[newest];
    points_.resize(kept + 1);
  }
  if (points_[kept].position / stretch_ != points_[open_].position / stretch_) open_ = kept;
}

// Doubles the stretches. The newest point always stays, so that every dropped one has one after it.
void Timeline::thin() {
  if (stretch_ < (1u << 31)) stretch_ *= 2;
  std::vector<Point> kept;
  kept.reserve(thin_at_);
  RoleBytes carried{};
  for (size_t begin = 0, end = 0; begin < points_.size(); begin = end) {
    size_t low = begin;
    size_t high = begin;
    const uint32_t stretch = points_[begin].position / stretch_;
    for (end = begin; end < points_.size() && points_[end].position / stretch_ == stretch; ++end) {
      if (points_[end].total < points_[low].total) low = end;
      if (points_[end].total > points_[high].total) high = end;
    }
    open_ = kept.size();
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
  // Where nearly all is protected, it is no use to try again soon.
  thin_at_ = std::max(2 * capacity_, points_.size() + capacity_);
}

std::vector<TimelinePoint> Timeline::finish() {
  if (points_.size() > capacity_) thin();
  std::vector<TimelinePoint> result;
  result.reserve(points_.size());
  RoleBytes now{};
  for (const Point& point : points_) {
    for (size_t role = 0; role < kRoleCount; ++role) now[role] += point.difference[role];
    result.push_back({point.where.time_ns, now, point.where.phase, point.where.micro_step,
                      point.where.module, point.where.op, point.where.reserved_bytes,
                      point.where.active_bytes, point.where.largest_free_bytes});
  }
  points_.clear();
  next_position_ = 0;
  stretch_ = 2;
  open_ = 0;
  thin_at_ = 2 * capacity_;
  return result;
}

}  // namespace tally
