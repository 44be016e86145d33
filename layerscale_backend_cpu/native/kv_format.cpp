#include "kv_format.h"

#include <algorithm>
#include <cmath>

#include "elementwise.h"

namespace layerscale {

namespace {

constexpr int kKeyGroup = 32, kValueGroup = 64;  // docs/decisions/0007-kv-precision.md has what was measured

int group_size(KvType type, int head_dim, int usual) {
    return type == KvType::kInt4 && head_dim % usual == 0 ? usual : head_dim;
}

int words_per_token(KvType type, int head_dim) {
    if (type == KvType::kFp16) return 0;
    const int codes_per_word = type == KvType::kInt8 ? 4 : 8;
    return (head_dim + codes_per_word - 1) / codes_per_word;
}

// The byte of a word that holds each of four neighbours: pairs lie 16 bits apart.
int byte_of(int neighbour) { return neighbour % 2 * 2 + neighbour / 2; }

// The nibble that holds each of eight.
int nibble_of(int neighbour) { return neighbour % 2 * 4 + neighbour / 2; }

void put_nibble(uint8_t* bytes, int nibble, int code) {
    const int shift = nibble % 2 * 4;
    uint8_t& byte = bytes[nibble / 2];
    byte = static_cast<uint8_t>((byte & (0xf0 >> shift)) | (code << shift));
}

int get_nibble(const uint8_t* bytes, int nibble) { return bytes[nibble / 2] >> (nibble % 2 * 4) & 15; }

size_t key_word(int slot, int word) { return sizeof(uint32_t) * (static_cast<size_t>(word) * kPageSize + slot); }

}  // namespace

KvFormat::KvFormat(KvType type, int head_dim)
    : type_(type), head_dim_(head_dim), num_words_(words_per_token(type, head_dim)),
      key_group_size_(group_size(type, head_dim, kKeyGroup)),
      value_group_size_(group_size(type, head_dim, kValueGroup)),
      code_bytes_(sizeof(uint32_t) * kPageSize * num_words_),
      key_bytes_(part_bytes(num_key_groups())), value_bytes_(part_bytes(num_value_groups())) {}

size_t KvFormat::part_bytes(int num_groups) const {
    const int halves_per_token = type_ == KvType::kFp16 ? head_dim_ : type_ == KvType::kInt8 ? 1 : 2 * num_groups;
    return code_bytes_ + sizeof(uint16_t) * kPageSize * halves_per_token;
}

// Writes scales and minima, and puts the codes. An element is rounded by its scale as stored, whose own rounding then
// costs nothing.
template <typename Put>
void KvFormat::round_to_codes(const float* x, int group_size, uint8_t* part, int slot, const Put& put) const {
    const int num_groups = head_dim_ / group_size;
    uint16_t* parameters = const_cast<uint16_t*>(scales(part)) + slot;
    const bool symmetric = type_ == KvType::kInt8;
    const float highest = symmetric ? 127.0f : 15.0f, lowest = symmetric ? -127.0f : 0.0f;
    for (int group = 0; group < num_groups; ++group) {
        const float* first = x + group * group_size;
        float low = first[0], high = first[0];
        for (int i = 1; i < group_size; ++i) low = std::min(low, first[i]), high = std::max(high, first[i]);
        const uint16_t minimum_half = float_to_half(symmetric ? 0.0f : low);
        const float minimum = half_to_float(minimum_half);
        const float spread = symmetric ? std::max(-low, high) : high - minimum;
        const uint16_t scale_half = float_to_half(spread / highest + nan_if_broken(first, group_size));
        parameters[group * kPageSize] = scale_half;
        if (!symmetric) parameters[(num_groups + group) * kPageSize] = minimum_half;
        const float scale = half_to_float(scale_half), inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
        for (int i = 0; i < group_size; ++i) {
            const float code = std::nearbyint((first[i] - minimum) * inverse);
            put(group * group_size + i, static_cast<int>(std::min(highest, std::max(lowest, code))));
        }
    }
}

void KvFormat::store_key(uint8_t* keys, int slot, const float* key) const {
    if (type_ == KvType::kInt8) {
        round_to_codes(key, key_group_size_, keys, slot, [=](int dim, int code) {
            keys[key_word(slot, dim / 4) + byte_of(dim % 4)] = static_cast<uint8_t>(code);
        });
    } else if (type_ == KvType::kInt4) {
        round_to_codes(key, key_group_size_, keys, slot, [=](int dim, int code) {
            put_nibble(keys + key_word(slot, dim / 8), nibble_of(dim % 8), code);
        });
    } else {
        uint16_t* halves = reinterpret_cast<uint16_t*>(keys) + slot;
        int dim = 0;
        for (; dim + kLanes <= head_dim_; dim += kLanes) {
            uint16_t row[kLanes];
            store_half(row, load(key + dim));
            for (int i = 0; i < kLanes; ++i) halves[(dim + i) * kPageSize] = row[i];
        }
        for (; dim < head_dim_; ++dim) halves[dim * kPageSize] = float_to_half(key[dim]);
    }
}

void KvFormat::store_value(uint8_t* values, int slot, const float* value) const {
    // The four tokens of a word are written by different threads, each its own byte.
    uint8_t* bytes = values + sizeof(uint32_t) * num_lanes() * (slot / 4) + byte_of(slot % 4);
    if (type_ == KvType::kInt8) {
        round_to_codes(value, value_group_size_, values, slot, [=](int dim, int code) { bytes[4 * dim] = static_cast<uint8_t>(code); });
    } else if (type_ == KvType::kInt4) {
        const int lanes = num_lanes();
        round_to_codes(value, value_group_size_, values, slot, [=](int dim, int code) {
            put_nibble(bytes + 4 * (dim % lanes), dim / lanes, code);
        });
    } else {
        uint16_t* halves = reinterpret_cast<uint16_t*>(values) + slot * head_dim_;
        int dim = 0;
        for (; dim + kLanes <= head_dim_; dim += kLanes) store_half(halves + dim, load(value + dim));
        for (; dim < head_dim_; ++dim) halves[dim] = float_to_half(value[dim]);
    }
}

void KvFormat::load_key(const uint8_t* keys, int slot, float* key) const {
    for (int dim = 0; dim < head_dim_; ++dim) {
        const size_t place = static_cast<size_t>(dim / key_group_size_) * kPageSize + slot;
        if (type_ == KvType::kFp16)
            key[dim] = half_to_float(reinterpret_cast<const uint16_t*>(keys)[dim * kPageSize + slot]);
        else if (type_ == KvType::kInt8)
            key[dim] = half_to_float(scales(keys)[place]) *
                       static_cast<int8_t>(keys[key_word(slot, dim / 4) + byte_of(dim % 4)]);
        else
            key[dim] = half_to_float(key_minima(keys)[place]) +
                       half_to_float(scales(keys)[place]) *
                           get_nibble(keys + key_word(slot, dim / 8), nibble_of(dim % 8));
    }
}

void KvFormat::load_value(const uint8_t* values, int slot, float* value) const {
    const uint8_t* bytes = values + sizeof(uint32_t) * num_lanes() * (slot / 4) + byte_of(slot % 4);
    for (int dim = 0; dim < head_dim_; ++dim) {
        const size_t place = static_cast<size_t>(dim / value_group_size_) * kPageSize + slot;
        if (type_ == KvType::kFp16)
            value[dim] = half_to_float(reinterpret_cast<const uint16_t*>(values)[slot * head_dim_ + dim]);
        else if (type_ == KvType::kInt8)
            value[dim] = half_to_float(scales(values)[place]) * static_cast<int8_t>(bytes[4 * dim]);
        else
            value[dim] = half_to_float(value_minima(values)[place]) +
                         half_to_float(scales(values)[place]) *
                             get_nibble(bytes + 4 * (dim % num_lanes()), dim / num_lanes());
    }
}

}  // namespace layerscale
