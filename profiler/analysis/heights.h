// SPDX-License-Identifier: Apache-2.0
// The live bytes along a timeline, to which bytes can be added between two times; how high the
// highest then is, is known at once. Both take the logarithm of the timeline's length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tally::analysis {

class Heights {
 public:
  struct Point {
    double seconds = 0;
    int64_t bytes = 0;
  };
  // In any order: those of several threads need not come by their times.
  explicit Heights(std::vector<Point> points);

  // To all points with begin <= seconds < end; to none if end <= begin.
  void add(double begin, double end, int64_t bytes);
  // 0 where there is no point or all are below it.
  int64_t highest() const;

 private:
  // A segment tree. The leaves are the points by their times, from size() on; node i has the
  // children 2i and 2i + 1.
  struct Node {
    int64_t highest = 0;  // of the points below, with what was added to this node and those below
    int64_t added = 0;    // to all points below at once
  };
  size_t size() const { return seconds_.size(); }
  size_t leaf_at(double seconds) const;  // the first that is not before
  void add_to_node(size_t node, int64_t bytes);
  void update_above(size_t node);

  std::vector<double> seconds_;
  std::vector<Node> nodes_;
};

}  // namespace tally::analysis
