// SPDX-License-Identifier: Apache-2.0
#include "profiler/recording/columns.h"

#include <zlib.h>

#include <cmath>
#include <cstring>

#include "profiler/core/error.h"

namespace tally::recording {
namespace {

constexpr double kWhole = 0x1p53;  // above it not every whole number is a double
constexpr uint64_t kRawReal = 0;   // stands before 8 raw bytes; whole numbers are stored plus 1
constexpr size_t kWorthPacking = 48;
// A blob of the largest step that makes sense is far below; a damaged size must not take memory.
constexpr uint64_t kLargestBlob = uint64_t{1} << 28;

[[noreturn]] void damaged() { throw Error("a block of columns is damaged"); }

}  // namespace

void Encoder::put(uint64_t value) {
  while (value >= 0x80) {
    bytes_ += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  bytes_ += static_cast<char>(value);
}

void Encoder::put_signed(int64_t value) {
  put((static_cast<uint64_t>(value) << 1) ^ static_cast<uint64_t>(value >> 63));
}

void Encoder::put_real(double value) {
  if (value >= 0 && value < kWhole && value == std::floor(value) && !std::signbit(value)) {
    put(static_cast<uint64_t>(value) + 1);
    return;
  }
  put(kRawReal);
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  bytes_.append(raw, sizeof raw);
}

std::string pack(std::string_view raw) {
  Encoder head;
  if (raw.size() >= kWorthPacking) {
    head.put(raw.size());
    std::string packed = head.raw();
    const size_t start = packed.size();
    uLongf size = compressBound(raw.size());
    packed.resize(start + size);
    if (compress2(reinterpret_cast<Bytef*>(packed.data() + start), &size,
                  reinterpret_cast<const Bytef*>(raw.data()), raw.size(), 6) == Z_OK &&
        size < raw.size()) {
      packed.resize(start + size);
      return packed;
    }
  }
  std::string plain(1, '\0');
  plain.append(raw);
  return plain;
}

std::string unpack(std::string_view packed) {
  if (packed.empty()) damaged();
  Decoder head(packed);
  const uint64_t size = head.get();
  size_t used = 1;
  while (used < packed.size() && (packed[used - 1] & 0x80)) ++used;
  const std::string_view body = packed.substr(used);
  if (size == 0) return std::string(body);
  // Deflate makes at most 1032 bytes out of one.
  if (size > kLargestBlob || size / 1032 > body.size()) damaged();
  std::string raw(size, '\0');
  uLongf length = size;
  if (uncompress(reinterpret_cast<Bytef*>(raw.data()), &length,
                 reinterpret_cast<const Bytef*>(body.data()), body.size()) != Z_OK ||
      length != size) {
    damaged();
  }
  return raw;
}

uint64_t Decoder::get() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) damaged();
    const auto byte = static_cast<unsigned char>(rest_.front());
    rest_.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
  }
  damaged();
}

int64_t Decoder::get_signed() {
  const uint64_t value = get();
  return static_cast<int64_t>((value >> 1) ^ (~(value & 1) + 1));
}

double Decoder::get_real() {
  const uint64_t whole = get();
  if (whole != kRawReal) return static_cast<double>(whole - 1);
  double value = 0;
  if (rest_.size() < sizeof value) damaged();
  std::memcpy(&value, rest_.data(), sizeof value);
  rest_.remove_prefix(sizeof value);
  return value;
}

size_t Decoder::get_count(size_t least) {
  const uint64_t count = get();
  if (count > rest_.size() / least) damaged();
  return count;
}

void Decoder::expect_end() const {
  if (!rest_.empty()) damaged();
}

}  // namespace tally::recording
