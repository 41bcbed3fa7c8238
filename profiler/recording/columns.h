// SPDX-License-Identifier: Apache-2.0
// Columns of numbers as few bytes: varints of differences, then deflate. What a recording keeps in
// its blobs; the layout of each blob is in books_codec.cpp. A decoder never reads outside its
// bytes and throws Error for what no encoder wrote.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tally::recording {

class Encoder {
 public:
  void put(uint64_t value);        // LEB128: 7 bits a byte, low bits first
  void put_signed(int64_t value);  // zigzag: small magnitudes stay small
  // A whole number below 2^53 as a varint of itself, any other double as its 8 bytes: exact.
  void put_real(double value);
  // How many rows follow, then each column in turn.
  template <typename Rows, typename Get>
  void column(const Rows& rows, Get get) {
    for (const auto& row : rows) put(static_cast<uint64_t>(get(row)));
  }
  template <typename Rows, typename Get>
  void real_column(const Rows& rows, Get get) {
    for (const auto& row : rows) put_real(get(row));
  }
  template <typename Rows, typename Get>
  void delta_column(const Rows& rows, Get get) {
    uint64_t last = 0;  // unsigned: differences wrap instead of overflowing
    for (const auto& row : rows) {
      const auto value = static_cast<uint64_t>(get(row));
      put_signed(static_cast<int64_t>(value - last));
      last = value;
    }
  }
  const std::string& raw() const { return bytes_; }

 private:
  std::string bytes_;
};

// Raw bytes <-> what is stored: varint(raw size), then a zlib stream; size 0 means "not
// compressed, the rest is raw" (short or incompressible columns).
std::string pack(std::string_view raw);
std::string unpack(std::string_view packed);

class Decoder {
 public:
  explicit Decoder(std::string_view raw) : rest_(raw) {}
  uint64_t get();
  int64_t get_signed();
  double get_real();
  // A row takes at least `least` bytes of what is left; more rows than that are no rows.
  size_t get_count(size_t least = 1);
  template <typename Rows, typename Set>
  void column(Rows& rows, Set set) {
    for (auto& row : rows) set(row, get());
  }
  template <typename Rows, typename Set>
  void real_column(Rows& rows, Set set) {
    for (auto& row : rows) set(row, get_real());
  }
  template <typename Rows, typename Set>
  void delta_column(Rows& rows, Set set) {
    uint64_t last = 0;
    for (auto& row : rows) {
      last += static_cast<uint64_t>(get_signed());
      set(row, static_cast<int64_t>(last));
    }
  }
  bool at_end() const { return rest_.empty(); }
  void expect_end() const;

 private:
  std::string_view rest_;
};

}  // namespace tally::recording
