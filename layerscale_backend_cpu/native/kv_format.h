// How the keys and values of one KV head lie in a page, at each precision of the cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace layerscale {

constexpr int kPageSize = kLanes;  // tokens in a page: a vector's lanes are a page's keys

enum class KvType { kFp16, kInt8, kInt4 };

// A head's place in a page: its keys, then its values.
//
// fp16  keys [head_dim][16], values [16][head_dim], float16. Keys lie transposed, so that the scores of 16 keys are one
//       vector and no horizontal sum is needed.
// int8  codes, then scales [16]; an element is scale * code. A word of key codes holds four dimensions of a key: [words]
//       [16]. A word of value codes holds four tokens in one dimension: [4][lanes].
// int4  codes, then scales and minima [groups][16] each; an element is minimum + scale * code. A word of key codes holds
//       eight dimensions; a word of value codes four tokens in two dimensions, i and lanes + i.
//
// Words have 32 bits, scales and minima are float16. Neighbours (dimensions of a key, tokens of values) lie 16 bits apart
// in their word, so that shift and mask give the pairs that `dot_pairs` takes.
class KvFormat {
public:
    KvFormat(KvType type, int head_dim);

    KvType type() const { return type_; }
    int head_dim() const { return head_dim_; }
    int num_words() const { return num_words_; }      // of one token's codes
    int num_lanes() const { return 4 * num_words_; }  // words of four tokens' value codes
    // Dimensions that share a scale: all where the usual number does not divide them.
    int key_group_size() const { return key_group_size_; }
    int value_group_size() const { return value_group_size_; }
    int num_key_groups() const { return head_dim_ / key_group_size_; }
    int num_value_groups() const { return head_dim_ / value_group_size_; }
    // Bytes of a head's 16 keys, and of its 16 values.
    size_t key_bytes() const { return key_bytes_; }
    size_t value_bytes() const { return value_bytes_; }

    // [groups][16]; of keys or values alike.
    const uint16_t* scales(const uint8_t* part) const { return reinterpret_cast<const uint16_t*>(part + code_bytes_); }
    const uint16_t* key_minima(const uint8_t* keys) const { return scales(keys) + num_key_groups() * kPageSize; }
    const uint16_t* value_minima(const uint8_t* values) const {
        return scales(values) + num_value_groups() * kPageSize;
    }

    // One token's key or value [head_dim].
    void store_key(uint8_t* keys, int slot, const float* key) const;
    void store_value(uint8_t* values, int slot, const float* value) const;
    void load_key(const uint8_t* keys, int slot, float* key) const;
    void load_value(const uint8_t* values, int slot, float* value) const;

private:
    size_t part_bytes(int num_groups) const;
    template <typename Put>
    void round_to_codes(const float* x, int group_size, uint8_t* part, int slot, const Put& put) const;

    KvType type_;
    int head_dim_, num_words_, key_group_size_, value_group_size_;
    size_t code_bytes_, key_bytes_, value_bytes_;
};

}  // namespace layerscale
