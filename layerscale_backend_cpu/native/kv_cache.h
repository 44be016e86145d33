// The paged KV cache.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "arena.h"
#include "hadamard.h"
#include "kv_format.h"

namespace layerscale {

// What turns the pairs of a head, each by a fixed angle.
struct Rotation {
    std::vector<float> cosines, sines;
    bool interleaved;  // pairs are (2i, 2i + 1), otherwise (i, i + number of pairs)

    int num_pairs() const { return static_cast<int>(cosines.size()); }
    int first(int pair) const { return interleaved ? 2 * pair : pair; }
    int second(int pair) const { return interleaved ? 2 * pair + 1 : pair + num_pairs(); }
};

// The keys and values of every layer: [layer][page][kv_head], each head's in a KvFormat.
class KvCache {
public:
    // The memory is asked of the system at once, so that no request waits for it later: each layer's first megabytes
    // before the constructor returns, the rest on a thread of its own, for gigabytes take seconds.
    KvCache(Arena& arena, KvType type, int num_layers, int num_pages, int num_kv_heads, int head_dim);
    ~KvCache();
    KvCache(const KvCache&) = delete;
    KvCache& operator=(const KvCache&) = delete;

    const KvFormat& format() const { return format_; }
    // What queries, keys and values are rotated by; null where they are stored as they are.
    const Hadamard* hadamard() const { return format_.type() == KvType::kFp16 ? nullptr : &hadamard_; }
    int num_pages() const { return num_pages_; }
    int64_t num_slots() const { return static_cast<int64_t>(num_pages_) * kPageSize; }

    const uint8_t* keys(int layer, int page, int kv_head) const { return data_ + offset(layer, page, kv_head); }
    const uint8_t* values(int layer, int page, int kv_head) const {
        return keys(layer, page, kv_head) + format_.key_bytes();
    }

    // key, value: [num_kv_heads * head_dim]
    void store(int layer, int64_t slot, const float* key, const float* value);
    void copy_page(int source, int target);
    // Turns every pair of the page's keys by its angle.
    void rotate_page(int layer, int page, const Rotation& rotation);

    // A page as bytes: all layers, one after the other.
    size_t page_bytes() const { return layer_page_bytes() * num_layers_; }
    void read_page(int page, uint8_t* out) const;
    void write_page(int page, const uint8_t* content);

private:
    size_t head_bytes() const { return format_.key_bytes() + format_.value_bytes(); }
    size_t layer_page_bytes() const { return head_bytes() * num_kv_heads_; }
    size_t offset(int layer, int page, int kv_head) const {
        return ((static_cast<size_t>(layer) * num_pages_ + page) * num_kv_heads_ + kv_head) * head_bytes();
    }
    void rotate_halves(uint16_t* keys, const Rotation& rotation) const;
    void rotate_codes(uint8_t* keys, const Rotation& rotation) const;
    bool populate(size_t begin);

    KvFormat format_;
    Hadamard hadamard_;
    int num_layers_, num_pages_, num_kv_heads_;
    size_t layer_bytes_;
    uint8_t* data_;
    std::atomic<bool> stopping_{false};
    std::thread populating_;
};

}  // namespace layerscale
