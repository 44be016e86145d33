#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace layerscale {

namespace {

constexpr int kRowTile = 4;                          // query rows that share a read of keys and values
constexpr int kTokensPerTask = 16;                   // of a prefill chunk
constexpr int kPartitionKeys = kPartitionPages * kPageSize;
constexpr int kValueVectors = kParts == 1 ? 4 : 1;   // accumulators of more would not fit the registers
constexpr size_t kDone = std::numeric_limits<size_t>::max();
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// A row's softmax so far: [maximum, sum of exponentials, weighted sum of values ...].
constexpr int kMaximum = 0, kSum = 1, kValues = 2;

struct Keys {  // the pages of one partition of a sequence
    const KvCache* kv;
    int layer;
    int kv_head;
    int num_pages;
    const int32_t* pages;
    const int32_t* starts;
    const int32_t* stops;
    int num_before;  // keys in earlier partitions
};

// The scores of kRows queries against one page: 16 keys a vector, even and odd dimensions in two chains.
template <int kRows>
void score_page(const uint16_t* keys, const float* const* queries, int head_dim, Vf scale, Vf (&scores)[kRows]) {
    Vf even[kRows], odd[kRows];
    for (int row = 0; row < kRows; ++row) even[row] = odd[row] = zero();
    int dim = 0;
    for (; dim + 1 < head_dim; dim += 2) {
        const Vf first = load_half(keys + dim * kPageSize), second = load_half(keys + (dim + 1) * kPageSize);
        for (int row = 0; row < kRows; ++row) {
            even[row] = fma(first, set1(queries[row][dim]), even[row]);
            odd[row] = fma(second, set1(queries[row][dim + 1]), odd[row]);
        }
    }
    if (dim < head_dim) {
        const Vf last = load_half(keys + dim * kPageSize);
        for (int row = 0; row < kRows; ++row) even[row] = fma(last, set1(queries[row][dim]), even[row]);
    }
    for (int row = 0; row < kRows; ++row) scores[row] = mul(add(even[row], odd[row]), scale);
}

// Scores of keys the row may not see become -infinity: slots outside the page's valid range, and later tokens.
void mask_page(float* scores, int start, int stop, int num_visible) {
    stop = std::min(stop, start + std::max(num_visible, 0));
    for (int slot = 0; slot < kPageSize; ++slot)
        if (slot < start || slot >= stop) scores[slot] = kMinusInfinity;
}

// Scores [num_keys] to exponentials in place; returns their maximum and sum.
void exponentiate(float* scores, int num_keys, float* maximum, float* sum) {
    Vf largest = set1(kMinusInfinity);
    for (int key = 0; key < num_keys; key += kLanes) largest = max(largest, load(scores + key));
    *maximum = reduce_max(largest);
    const Vf shift = set1(*maximum == kMinusInfinity ? 0.0f : *maximum);
    Vf total = zero();
    for (int key = 0; key < num_keys; key += kLanes) {
        const Vf weight = exp(sub(load(scores + key), shift));
        store(scores + key, weight);
        total = add(total, weight);
    }
    *sum = reduce_add(total);
}

// out[row] = weights[row] . values over the partition, kVectors * 16 dimensions at a time. Slots outside a page's valid
// range are never read: what a page held for an earlier owner cannot reach a result, not even as 0 * NaN.
template <int kRows, int kVectors>
void weigh_values(const Keys& keys, const float* weights, int dim, float* const* out) {
    Vf sums[kRows][kVectors];
    for (auto& row : sums)
        for (Vf& sum : row) sum = zero();
    const int stride = keys.kv->padded_dim();
    for (int p = 0; p < keys.num_pages; ++p) {
        const uint16_t* values = keys.kv->values(keys.layer, keys.pages[p], keys.kv_head) + dim;
        for (int slot = keys.starts[p]; slot < keys.stops[p]; ++slot) {
            Vf value[kVectors];
            for (int v = 0; v < kVectors; ++v) value[v] = load_half(values + slot * stride + v * kLanes);
            for (int row = 0; row < kRows; ++row) {
                const Vf weight = set1(weights[row * kPartitionKeys + p * kPageSize + slot]);
                for (int v = 0; v < kVectors; ++v) sums[row][v] = fma(weight, value[v], sums[row][v]);
            }
        }
    }
    for (int row = 0; row < kRows; ++row)
        for (int v = 0; v < kVectors; ++v) store(out[row] + dim + v * kLanes, sums[row][v]);
}

// One partition for kRows query rows: partial[row] = [maximum, sum, values].
template <int kRows>
void attend(const Keys& keys, const float* const* queries, const int* num_visible, float scale, float* scores,
            float* const* partial) {
    const KvCache& kv = *keys.kv;
    int before = keys.num_before;
    for (int p = 0; p < keys.num_pages; ++p) {
        Vf page_scores[kRows];
        score_page<kRows>(kv.keys(keys.layer, keys.pages[p], keys.kv_head), queries, kv.head_dim(), set1(scale),
                          page_scores);
        const int start = keys.starts[p], stop = keys.stops[p];
        for (int row = 0; row < kRows; ++row) {
            float* out = scores + row * kPartitionKeys + p * kPageSize;
            store(out, page_scores[row]);
            if (start > 0 || stop < kPageSize || before + stop - start > num_visible[row])
                mask_page(out, start, stop, num_visible[row] - before);
        }
        before += stop - start;
    }
    float* values[kRows];
    for (int row = 0; row < kRows; ++row) {
        exponentiate(scores + row * kPartitionKeys, keys.num_pages * kPageSize, partial[row] + kMaximum,
                     partial[row] + kSum);
        values[row] = partial[row] + kValues;
    }
    int dim = 0;
    for (; dim + kValueVectors * kLanes <= kv.padded_dim(); dim += kValueVectors * kLanes)
        weigh_values<kRows, kValueVectors>(keys, scores, dim, values);
    for (; dim < kv.padded_dim(); dim += kLanes) weigh_values<kRows, 1>(keys, scores, dim, values);
}

void attend_rows(int num_rows, const Keys& keys, const float* const* queries, const int* num_visible, float scale,
                 float* scores, float* const* partial) {
    switch (num_rows) {
        case 1: return attend<1>(keys, queries, num_visible, scale, scores, partial);
        case 2: return attend<2>(keys, queries, num_visible, scale, scores, partial);
        case 3: return attend<3>(keys, queries, num_visible, scale, scores, partial);
        default: return attend<4>(keys, queries, num_visible, scale, scores, partial);
    }
}

void clear(float* state, int padded_dim) {
    state[kMaximum] = kMinusInfinity;
    state[kSum] = 0.0f;
    std::memset(state + kValues, 0, sizeof(float) * padded_dim);
}

// Adds a partition's softmax to a row's (arXiv:1805.02867). A partition without visible keys changes nothing, bit for bit.
void merge(float* state, const float* partial, int padded_dim) {
    if (partial[kSum] == 0.0f) return;
    const float maximum = std::max(state[kMaximum], partial[kMaximum]);
    const float keep = std::exp(state[kMaximum] - maximum), take = std::exp(partial[kMaximum] - maximum);
    state[kMaximum] = maximum;
    state[kSum] = state[kSum] * keep + partial[kSum] * take;
    for (int dim = 0; dim < padded_dim; dim += kLanes) {
        float* out = state + kValues + dim;
        store(out, fma(load(partial + kValues + dim), set1(take), mul(load(out), set1(keep))));
    }
}

void finish(const float* state, int head_dim, float* out) {
    for (int dim = 0; dim < head_dim; ++dim) out[dim] = state[kValues + dim] / state[kSum];
}

// Leaves out the pages that lie after every visible key; returns whether any is left.
bool trim(Keys& keys, int most_visible) {
    int pages = 0;
    for (int before = keys.num_before; pages < keys.num_pages && before < most_visible; ++pages)
        before += keys.stops[pages] - keys.starts[pages];
    keys.num_pages = pages;
    return pages > 0;
}

}  // namespace

void Attention::begin_step(const Batch& batch) {
    stride_ = static_cast<size_t>(batch.max_pages) + 1;
    num_pages_.assign(batch.num_seqs, 0);
    keys_before_.resize(batch.num_seqs * stride_);
    for (int seq = 0; seq < batch.num_seqs; ++seq) {
        const size_t row = static_cast<size_t>(seq) * batch.max_pages;
        int32_t* before = keys_before_.data() + seq * stride_;
        int page = 0;
        before[0] = 0;
        for (; page < batch.max_pages && batch.page_tables[row + page] >= 0; ++page)
            before[page + 1] = before[page] + batch.page_stops[row + page] - batch.page_starts[row + page];
        num_pages_[seq] = page;
    }
}

// Prefill chunks are divided by tokens, decode tokens by partitions of their context.
void Attention::plan(const Batch& batch, const AttentionShape& shape, int partial_size) {
    tasks_.clear();
    split_seqs_.clear();
    split_offsets_.clear();
    const int group = shape.num_heads / shape.num_kv_heads;
    size_t num_partials = 0;
    for (int seq = 0; seq < batch.num_seqs; ++seq) {
        const int begin = batch.cu_seqlens[seq], end = batch.cu_seqlens[seq + 1];
        const int partitions = num_partitions(seq);
        if (end - begin == 1 && partitions > 1) {
            split_seqs_.push_back(seq);
            split_offsets_.push_back(num_partials);
            for (int head = 0; head < shape.num_kv_heads; ++head)
                for (int partition = 0; partition < partitions; ++partition, num_partials += group)
                    tasks_.push_back({seq, head, begin, 1, partition, 1, num_partials});
            continue;
        }
        for (int head = 0; head < shape.num_kv_heads; ++head)
            for (int token = begin; token < end; token += kTokensPerTask)
                tasks_.push_back({seq, head, token, std::min(kTokensPerTask, end - token), 0, partitions, kDone});
    }
    partials_.resize(std::max(partials_.size(), num_partials * partial_size));
}

void Attention::run(const KvCache& kv, int layer, const Batch& batch, const AttentionShape& shape, const float* queries,
                    float* out) {
    const int partial_size = kValues + kv.padded_dim();
    plan(batch, shape, partial_size);
    for (Scratch& scratch : scratch_) {
        scratch.scores.resize(kRowTile * kPartitionKeys);
        scratch.partial.resize(kRowTile * partial_size);
        scratch.state.resize(kRowTile * partial_size);
    }
    pool_.parallel_for(static_cast<int>(tasks_.size()), [&](int index, int thread) {
        compute(tasks_[index], scratch_[thread], kv, layer, batch, shape, queries, out);
    });
    pool_.parallel_for(static_cast<int>(split_seqs_.size()), [&](int index, int thread) {
        merge_sequence(index, scratch_[thread], kv, batch, shape, out);
    });
}

void Attention::compute(const Task& task, Scratch& scratch, const KvCache& kv, int layer, const Batch& batch,
                        const AttentionShape& shape, const float* queries, float* out) {
    const int group = shape.num_heads / shape.num_kv_heads, padded = kv.padded_dim(), size = kValues + padded;
    const int last_token = batch.cu_seqlens[task.seq + 1] - 1;
    const size_t row_size = static_cast<size_t>(shape.num_heads) * shape.head_dim;

    const int num_rows = task.num_tokens * group;
    for (int first = 0; first < num_rows; first += kRowTile) {
        const int rows = std::min(kRowTile, num_rows - first);
        const float* row_queries[kRowTile];
        size_t row_offsets[kRowTile];
        int num_visible[kRowTile];
        float* states[kRowTile];
        float* partials[kRowTile];
        for (int i = 0; i < rows; ++i) {
            const int token = task.first_token + (first + i) / group, head = task.kv_head * group + (first + i) % group;
            row_offsets[i] = token * row_size + static_cast<size_t>(head) * shape.head_dim;
            row_queries[i] = queries + row_offsets[i];
            num_visible[i] = context_len(task.seq) - (last_token - token);
            states[i] = scratch.state.data() + i * size;
            const bool shared = task.partial != kDone;
            partials[i] = shared ? partials_.data() + (task.partial + first + i) * size : scratch.partial.data() + i * size;
            clear(states[i], padded);
        }
        for (int partition = 0; partition < task.num_partitions; ++partition) {
            const int first_page = (task.first_partition + partition) * kPartitionPages;
            const size_t place = static_cast<size_t>(task.seq) * batch.max_pages + first_page;
            Keys keys{&kv, layer, task.kv_head, std::min(kPartitionPages, num_pages(task.seq) - first_page),
                      batch.page_tables + place, batch.page_starts + place, batch.page_stops + place,
                      keys_before(task.seq)[first_page]};
            if (!trim(keys, *std::max_element(num_visible, num_visible + rows))) break;
            attend_rows(rows, keys, row_queries, num_visible, shape.scale, scratch.scores.data(), partials);
            if (task.partial != kDone) continue;
            for (int i = 0; i < rows; ++i) merge(states[i], partials[i], padded);
        }
        if (task.partial != kDone) continue;
        for (int i = 0; i < rows; ++i) finish(states[i], shape.head_dim, out + row_offsets[i]);
    }
}

void Attention::merge_sequence(int index, Scratch& scratch, const KvCache& kv, const Batch& batch,
                               const AttentionShape& shape, float* out) {
    const int group = shape.num_heads / shape.num_kv_heads, padded = kv.padded_dim(), size = kValues + padded;
    const int seq = split_seqs_[index];
    const int partitions = num_partitions(seq);
    float* result = out + static_cast<size_t>(batch.cu_seqlens[seq]) * shape.num_heads * shape.head_dim;
    float* state = scratch.state.data();
    for (int head = 0; head < shape.num_heads; ++head) {
        clear(state, padded);
        for (int partition = 0; partition < partitions; ++partition) {
            const size_t task = static_cast<size_t>(head / group) * partitions + partition;
            merge(state, partials_.data() + (split_offsets_[index] + task * group + head % group) * size, padded);
        }
        finish(state, shape.head_dim, result + static_cast<size_t>(head) * shape.head_dim);
    }
}

}  // namespace layerscale
