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

// The keys and values of every layer, in a KvFormat: [layer][kv_head], of each the keys of all pages, then the values of all
// pages. What a head reads of neighbouring pages lies in a run then, which processors foresee: memory gives it a third faster
// than pieces of a page.
class KvCache {
public:
    // The memory is asked of the system at once, so that no request waits for it later: the first pages before the constructor
    // returns, the rest on a thread of its own, for gigabytes take seconds.
    KvCache(Arena& arena, KvType type, int num_layers, int num_pages, int num_kv_heads, int head_dim);
    ~KvCache();
    KvCache(const KvCache&) = delete;
    KvCache& operator=(const KvCache&) = delete;

    const KvFormat& format() const { return format_; }
    // What queries, keys and values are rotated by; null where they are stored as they are.
    const Hadamard* hadamard() const { return format_.type() == KvType::kFp16 ? nullptr : &hadamard_; }
    int num_pages() const { return num_pages_; }
    int64_t num_slots() const { return static_cast<int64_t>(num_pages_) * kPageSize; }

    const uint8_t* keys(int layer, int page, int kv_head) const {
        return data_ + head_offset(layer, kv_head) + page * format_.key_bytes();
    }
    const uint8_t* values(int layer, int page, int kv_head) const {
        return data_ + head_offset(layer, kv_head) + num_pages_ * format_.key_bytes() + page * format_.value_bytes();
    }

    // key, value: [num_kv_heads * head_dim]
    void store(int layer, int64_t slot, const float* key, const float* value);
    void copy_page(int source, int target);
    // Turns every pair of the page's keys by its angle.
    void rotate_page(int layer, int page, const Rotation& rotation);

    // A page as bytes: [layer][kv_head], of each its keys, then its values.
    size_t page_bytes() const { return page_head_bytes() * num_kv_heads_ * num_layers_; }
    void read_page(int page, uint8_t* out) const;
    void write_page(int page, const uint8_t* content);

private:
    size_t page_head_bytes() const { return format_.key_bytes() + format_.value_bytes(); }
    size_t head_offset(int layer, int kv_head) const {
        return (static_cast<size_t>(layer) * num_kv_heads_ + kv_head) * num_pages_ * page_head_bytes();
    }
    uint8_t* mutable_keys(int layer, int page, int kv_head) { return const_cast<uint8_t*>(keys(layer, page, kv_head)); }
    uint8_t* mutable_values(int layer, int page, int kv_head) { return const_cast<uint8_t*>(values(layer, page, kv_head)); }
    template <typename Body>
    void for_each_head(const Body& body) const;
    void rotate_halves(uint16_t* keys, const Rotation& rotation) const;
    void rotate_codes(uint8_t* keys, const Rotation& rotation) const;
    bool populate(int first_page);

    KvFormat format_;
    Hadamard hadamard_;
    int num_layers_, num_pages_, num_kv_heads_;
    int pages_at_once_;  // that are populated
    uint8_t* data_;
    std::atomic<bool> stopping_{false};
    std::thread populating_;
};

}  // namespace layerscale
