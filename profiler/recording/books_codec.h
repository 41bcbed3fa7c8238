// SPDX-License-Identifier: Apache-2.0
// The parts of a step that a recording keeps as blobs of columns, there and back. What changes
// from step to step (times) is kept apart from what repeats, so that the writer stores the
// repeated part once. All raw: columns.h packs them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "profiler/ledger/books.h"

namespace tally::recording {

// Cells of one role; the role itself stands beside the blob.
std::string encode_cells(const std::vector<Cell>& cells);
std::vector<Cell> decode_cells(std::string_view raw, Role role);

std::string encode_timeline(const std::vector<TimelinePoint>& points);
std::string encode_timeline_times(const std::vector<TimelinePoint>& points);
std::vector<TimelinePoint> decode_timeline(std::string_view raw, std::string_view raw_times);

std::string encode_operators(const std::vector<OperatorRow>& rows);
std::string encode_operator_times(const std::vector<OperatorRow>& rows);
std::vector<OperatorRow> decode_operators(std::string_view raw, std::string_view raw_times);

std::string encode_blocks(const std::vector<BlockRow>& blocks);
std::vector<BlockRow> decode_blocks(std::string_view raw);

// At most `limit` points (at least 4): the first, last, highest and lowest totals, the moments of
// `marks` and, between them, the highest and lowest of equal stretches. Which points
// stay depends on bytes and order, not on times: a step that repeats the bytes of the one before
// keeps the same points.
std::vector<TimelinePoint> thin_timeline(const std::vector<TimelinePoint>& points,
                                         const std::vector<MarkBook>& marks, size_t limit);

}  // namespace tally::recording
