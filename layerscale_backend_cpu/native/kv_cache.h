// The paged KV cache.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "arena.h"
#include "simd.h"

namespace layerscale {

constexpr int kPageSize = kLanes;  // tokens in a page: a vector's lanes are a page's keys

// What turns the pairs of a head by fixed angles.
struct Rotation {
    std::vector<float> cosines, sines;  // one a pair
    bool interleaved;                   // pairs are (2i, 2i + 1), otherwise (i, i + number of pairs)
};

// Keys [layer][page][kv_head][head_dim][16] and values [layer][page][kv_head][16][padded_dim], float16. Keys lie
// transposed, so that the scores of 16 keys are one vector and no horizontal sum is needed.
class KvCache {
public:
    // The memory is asked of the system at once, so that no request waits for it later: each layer's first megabytes
    // before the constructor returns, the rest on a thread of its own, for gigabytes take seconds.
    KvCache(Arena& arena, int num_layers, int num_pages, int num_kv_heads, int head_dim);
    ~KvCache();
    KvCache(const KvCache&) = delete;
    KvCache& operator=(const KvCache&) = delete;

    int num_pages() const { return num_pages_; }
    int head_dim() const { return head_dim_; }
    int padded_dim() const { return padded_dim_; }
    int64_t num_slots() const { return static_cast<int64_t>(num_pages_) * kPageSize; }

    const uint16_t* keys(int layer, int page, int kv_head) const { return data_ + offset(layer, page, kv_head); }
    const uint16_t* values(int layer, int page, int kv_head) const {
        return keys(layer, page, kv_head) + head_dim_ * kPageSize;
    }

    // key, value: [num_kv_heads * head_dim]
    void store(int layer, int64_t slot, const float* key, const float* value);
    void copy_page(int source, int target);
    // Turns every pair of the page's keys by its angle; `rotation` holds a cosine and a sine a pair.
    void rotate_page(int layer, int page, const Rotation& rotation);

    // A page as bytes: all layers, one after the other.
    size_t page_bytes() const { return layer_page_bytes() * num_layers_; }
    void read_page(int page, uint8_t* out) const;
    void write_page(int page, const uint8_t* content);

private:
    size_t layer_page_bytes() const { return sizeof(uint16_t) * head_elements_ * num_kv_heads_; }
    size_t offset(int layer, int page, int kv_head) const {
        return ((static_cast<size_t>(layer) * num_pages_ + page) * num_kv_heads_ + kv_head) * head_elements_;
    }

    bool populate(size_t begin);

    int num_layers_, num_pages_, num_kv_heads_, head_dim_, padded_dim_;
    size_t head_elements_;  // float16 numbers of one head's keys and values in a page
    size_t layer_bytes_;
    uint16_t* data_;
    std::atomic<bool> stopping_{false};
    std::thread populating_;
};

}  // namespace layerscale
