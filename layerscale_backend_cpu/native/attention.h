// The paged KV cache and attention over it.
#pragma once

#include <cstdint>
#include <vector>

#include "arena.h"
#include "batch.h"
#include "simd.h"
#include "thread_pool.h"

namespace layerscale {

constexpr int kPageSize = kLanes;        // tokens in a page: a vector's lanes are a page's keys
constexpr int kPartitionPages = 32;      // pages whose softmax is taken at once; partitions are merged in order

// Keys [layer][page][kv_head][head_dim][16] and values [layer][page][kv_head][16][padded_dim], float16. Keys lie
// transposed, so that the scores of 16 keys are one vector and no horizontal sum is needed.
class KvCache {
public:
    KvCache(Arena& arena, int num_layers, int num_pages, int num_kv_heads, int head_dim);

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

private:
    size_t offset(int layer, int page, int kv_head) const {
        return ((static_cast<size_t>(layer) * num_pages_ + page) * num_kv_heads_ + kv_head) * head_elements_;
    }

    int num_layers_, num_pages_, num_kv_heads_, head_dim_, padded_dim_;
    size_t head_elements_;  // float16 numbers of one head's keys and values in a page
    uint16_t* data_;
};

struct AttentionShape {
    int num_heads;
    int num_kv_heads;
    int head_dim;
    float scale;
};

// Causal attention of a whole batch. Every query runs over the partitions of its pages in order, whether they are
// computed by one thread (prefill) or by several (decode), so that its result has the same bits in any batch.
class Attention {
public:
    explicit Attention(ThreadPool& pool) : pool_(pool), scratch_(pool.num_threads()) {}

    // queries, out: [num_tokens, num_heads * head_dim]
    void run(const KvCache& kv, int layer, const Batch& batch, const AttentionShape& shape, const float* queries,
             float* out);

private:
    struct Task {
        int seq;
        int kv_head;
        int first_token;  // of the batch
        int num_tokens;
        int first_partition;
        int num_partitions;
        size_t partial;   // where the result goes when others share the query; else kDone
    };
    struct Scratch {
        std::vector<float> scores;
        std::vector<float> partial;
        std::vector<float> state;
    };

    void plan(const Batch& batch, const AttentionShape& shape, int partial_size);
    void compute(const Task& task, Scratch& scratch, const KvCache& kv, int layer, const Batch& batch,
                 const AttentionShape& shape, const float* queries, float* out);
    void merge_sequence(int seq, Scratch& scratch, const KvCache& kv, const Batch& batch, const AttentionShape& shape,
                        float* out);

    ThreadPool& pool_;
    std::vector<Scratch> scratch_;
    std::vector<Task> tasks_;
    std::vector<int> split_seqs_;       // sequences whose query is shared by several tasks
    std::vector<size_t> split_offsets_; // their first partial: [kv_head][partition][group]
    std::vector<float> partials_;
};

}  // namespace layerscale
