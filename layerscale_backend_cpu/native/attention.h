// Causal attention over the paged KV cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attend.h"

#include "batch.h"
#include "buffer.h"
#include "kv_cache.h"
#include "thread_pool.h"

namespace layerscale {

struct AttentionShape {
    int num_heads;
    int num_kv_heads;
    int head_dim;
    float scale;
    int window;        // most keys that a token sees; the largest number there is where that is all
    int chunk;         // keys of a chunk, of which a token sees its own alone; the same
    float softcap;     // 0 = none
    bool has_biases;   // of query, key and value
    bool has_qk_norm;
    int temperature_interval, temperature_offset;
    float temperature_slope;  // of what queries are multiplied by; 0 = nothing

    // Of so many keys, how many their last token does not see.
    int num_hidden(int num_visible) const {
        return std::max({0, num_visible - window, (num_visible - 1) / chunk * chunk});
    }
};

// Causal attention of a whole batch. Every query runs over the partitions of its pages in order, whether they are
// computed by one thread (prefill) or by several (decode), so that its result has the same bits in any batch.
class Attention {
public:
    // in_bfloats: keys and values in half precision are multiplied as bfloat16, where the processor has that.
    Attention(ThreadPool& pool, bool in_bfloats)
        : pool_(pool), in_bfloats_(in_bfloats && has_bfloat_pairs()), scratch_(pool.num_threads()) {}

    // Takes a step's page tables in, once for all layers.
    void begin_step(const Batch& batch);

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
    struct SplitToken {        // whose rows are shared by several tasks
        int index;             // in the batch
        int num_partitions;
        int num_rows;          // of each task
        size_t first_partial;  // [kv_head][partition][row], of its first row in the first task
    };
    struct Scratch {
        AttendScratch attend;
        Floats partials;
        Floats states;
    };

    int num_pages(int seq) const { return num_pages_[seq]; }
    int num_partitions(int seq) const { return (num_pages_[seq] + kPartitionPages - 1) / kPartitionPages; }
    const int32_t* keys_before(int seq) const { return keys_before_.data() + static_cast<size_t>(seq) * stride_; }
    int context_len(int seq) const { return keys_before(seq)[num_pages_[seq]]; }
    void plan(const Batch& batch, const AttentionShape& shape, int partial_size);
    // Rows [first, first + count) of a task: of each of its tokens, those of the heads that share the KV head.
    void compute(const Task& task, int first, int count, Scratch& scratch, const KvCache& kv, int layer,
                 const Batch& batch, const AttentionShape& shape, const float* queries, float* out);
    void attend(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch) const;
    void merge_token(const SplitToken& token, float* state, int size, const AttentionShape& shape, float* out) const;

    ThreadPool& pool_;
    bool in_bfloats_;
    std::vector<Scratch> scratch_;
    std::vector<int> num_pages_;        // of each sequence
    std::vector<int32_t> keys_before_;  // [num_seqs, max_pages + 1], keys in the pages before each
    size_t stride_ = 0;
    std::vector<Task> tasks_;
    std::vector<SplitToken> split_tokens_;
    Floats partials_;
};

}  // namespace layerscale
