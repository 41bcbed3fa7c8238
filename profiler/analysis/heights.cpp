// SPDX-License-Identifier: Apache-2.0
#include "profiler/analysis/heights.h"

#include <algorithm>

namespace tally::analysis {

Heights::Heights(std::vector<Point> points) : nodes_(2 * points.size()) {
  std::stable_sort(points.begin(), points.end(),
                   [](const Point& a, const Point& b) { return a.seconds < b.seconds; });
  seconds_.reserve(points.size());
  for (const Point& point : points) {
    nodes_[points.size() + seconds_.size()].highest = point.bytes;
    seconds_.push_back(point.seconds);
  }
  for (size_t node = size(); node-- > 1;) {
    nodes_[node].highest = std::max(nodes_[2 * node].highest, nodes_[2 * node + 1].highest);
  }
}

void Heights::add(double begin, double end, int64_t bytes) {
  const size_t first = leaf_at(begin), behind = leaf_at(end);
  if (first >= behind || bytes == 0) return;
  for (size_t left = first, right = behind; left < right; left /= 2, right /= 2) {
    if (left % 2 == 1) add_to_node(left++, bytes);
    if (right % 2 == 1) add_to_node(--right, bytes);
  }
  update_above(first);
  update_above(behind - 1);
}

int64_t Heights::highest() const {
  return nodes_.empty() ? 0 : std::max<int64_t>(0, nodes_[1].highest);
}

size_t Heights::leaf_at(double seconds) const {
  const auto found = std::lower_bound(seconds_.begin(), seconds_.end(), seconds);
  return size() + static_cast<size_t>(found - seconds_.begin());
}

void Heights::add_to_node(size_t node, int64_t bytes) {
  nodes_[node].highest += bytes;
  nodes_[node].added += bytes;
}

void Heights::update_above(size_t node) {
  for (node /= 2; node >= 1; node /= 2) {
    nodes_[node].highest =
        std::max(nodes_[2 * node].highest, nodes_[2 * node + 1].highest) + nodes_[node].added;
  }
}

}  // namespace tally::analysis
