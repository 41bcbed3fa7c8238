// SPDX-License-Identifier: Apache-2.0
#include "reports/page_columns.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include <zlib.h>

#include "profiler/core/error.h"

namespace tally::reports {
namespace {

static_assert(std::endian::native == std::endian::little, "the page reads little-endian columns");

template <typename T>
void append(const std::vector<double>& values, std::string* bytes) {
  const size_t begin = bytes->size();
  bytes->resize(begin + values.size() * sizeof(T));
  T* out = reinterpret_cast<T*>(bytes->data() + begin);  // begin is a multiple of 8
  for (const double value : values) *out++ = static_cast<T>(value);
}

}  // namespace

void Columns::add(const std::string& name, const std::vector<double>& values) {
  double lowest = 0;
  double highest = 0;
  bool whole = true;
  for (const double value : values) {
    lowest = std::min(lowest, value);
    highest = std::max(highest, value);
    whole = whole && value == std::floor(value);
  }
  bytes_.resize((bytes_.size() + 7) / 8 * 8);
  const size_t offset = bytes_.size();
  const char* type = "f64";
  if (whole && lowest >= 0 && highest <= UINT8_MAX) {
    type = "u8";
    append<uint8_t>(values, &bytes_);
  } else if (whole && lowest >= 0 && highest <= UINT16_MAX) {
    type = "u16";
    append<uint16_t>(values, &bytes_);
  } else if (whole && lowest >= 0 && highest <= UINT32_MAX) {
    type = "u32";
    append<uint32_t>(values, &bytes_);
  } else if (whole && lowest >= INT32_MIN && highest <= INT32_MAX) {
    type = "i32";
    append<int32_t>(values, &bytes_);
  } else {
    append<double>(values, &bytes_);
  }
  directory_.push_back({name, type, offset, values.size()});
}

std::string Columns::packed() const { return base64(gzip(bytes_)); }

void Table::move_to(Columns* out) const {
  for (size_t i = 0; i < names_.size(); ++i) out->add(name_ + "." + names_[i], columns_[i]);
}

std::string gzip(std::string_view bytes) {
  z_stream stream{};
  constexpr int kGzip = 15 + 16;  // the largest window, with gzip's header
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzip, 9, Z_DEFAULT_STRATEGY) !=
      Z_OK) {
    throw Error("zlib cannot compress the data of the report page");
  }
  std::string out(deflateBound(&stream, static_cast<uLong>(bytes.size())), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  if (result != Z_STREAM_END) throw Error("zlib cannot compress the data of the report page");
  return out;
}

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    for (size_t k = 0; k < 3; ++k) {
      group = group << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += k <= count ? kDigits[group >> (18 - 6 * k) & 63] : '=';
    }
  }
  return out;
}

}  // namespace tally::reports
