#include "attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace layerscale {

namespace {

constexpr int kTokensPerTask = 16;
constexpr size_t kDone = std::numeric_limits<size_t>::max();

void clear(float* state, int size) {
    std::fill_n(state, size, 0.0f);
    state[kMaximum] = kMinusInfinity;
}

// Adds a partition's softmax to a row's (arXiv:1805.02867). A partition without visible keys changes nothing, bit for bit.
void merge(float* state, const float* partial, int size) {
    if (partial[kSum] == 0.0f) return;
    const float maximum = std::max(state[kMaximum], partial[kMaximum]);
    const float keep = std::exp(state[kMaximum] - maximum), take = std::exp(partial[kMaximum] - maximum);
    state[kMaximum] = maximum;
    state[kSum] = state[kSum] * keep + partial[kSum] * take;
    for (int i = kValues; i < size; i += kLanes)
        store(state + i, fma(load(partial + i), set1(take), mul(load(state + i), set1(keep))));
}

void finish(const float* state, int head_dim, float* out) {
    for (int dim = 0; dim < head_dim; ++dim) out[dim] = state[kValues + dim] / state[kSum];
}

// Floats of a row's softmax state, in whole vectors.
int state_size(const KvCache& kv) { return kValues + (kv.format().head_dim() + kLanes - 1) / kLanes * kLanes; }

// Leaves out the pages that lie before every row's window, and those after every visible key; returns whether any is left.
bool trim(Keys& keys, int least_hidden, int most_visible) {
    while (keys.num_pages > 0 && keys.num_before + *keys.stops - *keys.starts <= least_hidden) {
        keys.num_before += *keys.stops++ - *keys.starts++;
        ++keys.pages;
        --keys.num_pages;
    }
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

// Long chunks are divided by tokens; decode tokens and short chunks, which a question is, by partitions of their context.
void Attention::plan(const Batch& batch, const AttentionShape& shape, int partial_size) {
    tasks_.clear();
    split_tokens_.clear();
    const int group = shape.num_heads / shape.num_kv_heads;
    size_t num_partials = 0;
    for (int seq = 0; seq < batch.num_seqs; ++seq) {
        const int begin = batch.cu_seqlens[seq], end = batch.cu_seqlens[seq + 1];
        const int partitions = num_partitions(seq), num_rows = (end - begin) * group;
        if (end - begin > kTokensPerTask || partitions == 1) {
            for (int head = 0; head < shape.num_kv_heads; ++head)
                for (int token = begin; token < end; token += kTokensPerTask)
                    tasks_.push_back({seq, head, token, std::min(kTokensPerTask, end - token), 0, partitions, kDone});
            continue;
        }
        for (int token = begin; token < end; ++token)
            split_tokens_.push_back({token, partitions, num_rows, num_partials + (token - begin) * group});
        for (int head = 0; head < shape.num_kv_heads; ++head)
            for (int partition = 0; partition < partitions; ++partition, num_partials += num_rows)
                tasks_.push_back({seq, head, begin, end - begin, partition, 1, num_partials});
    }
    grow(partials_, num_partials * partial_size);
}

void Attention::run(const KvCache& kv, int layer, const Batch& batch, const AttentionShape& shape, const float* queries,
                    float* out) {
    constexpr int kMaxRows = kMaxTiles * kRowTile;
    const int partial_size = state_size(kv), group = shape.num_heads / shape.num_kv_heads;
    plan(batch, shape, partial_size);
    for (Scratch& scratch : scratch_) {
        grow(scratch.partials, static_cast<size_t>(kMaxRows) * partial_size);
        grow(scratch.states, static_cast<size_t>(kMaxRows) * partial_size);
    }
    pool_.parallel_for(static_cast<int>(tasks_.size()), [&](int index, int thread) {
        const int num_rows = tasks_[index].num_tokens * group;
        for (int first = 0; first < num_rows; first += kMaxRows)
            compute(tasks_[index], first, std::min(kMaxRows, num_rows - first), scratch_[thread], kv, layer, batch, shape,
                    queries, out);
    });
    pool_.parallel_for(static_cast<int>(split_tokens_.size()), [&](int index, int thread) {
        merge_token(split_tokens_[index], scratch_[thread].states.data(), partial_size, shape, out);
    });
}

void Attention::attend(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch) const {
    if (keys.kv->format().type() != KvType::kFp16) attend_codes(keys, tiles, scoring, scratch);
    else if (in_bfloats_) attend_bfloats(keys, tiles, scoring, scratch);
    else attend_halves(keys, tiles, scoring, scratch);
}

void Attention::compute(const Task& task, int first, int count, Scratch& scratch, const KvCache& kv, int layer,
                        const Batch& batch, const AttentionShape& shape, const float* queries, float* out) {
    const int group = shape.num_heads / shape.num_kv_heads, size = state_size(kv);
    const int last_token = batch.cu_seqlens[task.seq + 1] - 1;
    const bool is_shared = task.partial != kDone;
    const auto token_of = [&](int row) { return task.first_token + (first + row) / group; };
    const auto offset_of = [&](int row) {
        const size_t head = static_cast<size_t>(task.kv_head) * group + (first + row) % group;
        return (static_cast<size_t>(token_of(row)) * shape.num_heads + head) * shape.head_dim;
    };
    const auto state_of = [&](int row) { return scratch.states.data() + static_cast<size_t>(row) * size; };
    const auto partial_of = [&](int row) {
        return is_shared ? partials_.data() + (task.partial + first + row) * size
                         : scratch.partials.data() + static_cast<size_t>(row) * size;
    };

    Rows rows[kMaxTiles];
    int least_hidden = std::numeric_limits<int>::max(), most_visible = 0;
    for (int row = 0; row < count; ++row) {
        Rows& tile = rows[row / kRowTile];
        const int i = row % kRowTile;
        tile.count = i + 1;
        tile.queries[i] = queries + offset_of(row);
        tile.num_visible[i] = context_len(task.seq) - (last_token - token_of(row));
        tile.num_hidden[i] = shape.num_hidden(tile.num_visible[i]);
        tile.partials[i] = partial_of(row);
        least_hidden = std::min(least_hidden, tile.num_hidden[i]);
        most_visible = std::max(most_visible, tile.num_visible[i]);
        clear(state_of(row), size);
    }
    const Tiles tiles{rows, (count + kRowTile - 1) / kRowTile};
    for (int partition = 0; partition < task.num_partitions; ++partition) {
        const int first_page = (task.first_partition + partition) * kPartitionPages;
        const size_t place = static_cast<size_t>(task.seq) * batch.max_pages + first_page;
        Keys keys{&kv, layer, task.kv_head, std::min(kPartitionPages, num_pages(task.seq) - first_page),
                  batch.page_tables + place, batch.page_starts + place, batch.page_stops + place,
                  keys_before(task.seq)[first_page]};
        if (!trim(keys, least_hidden, most_visible)) {
            for (int row = 0; row < count; ++row) partial_of(row)[kSum] = 0.0f;  // for who merges a shared query
            continue;
        }
        attend(keys, tiles, {shape.scale, shape.softcap}, scratch.attend);
        if (is_shared) continue;
        for (int row = 0; row < count; ++row) merge(state_of(row), partial_of(row), size);
    }
    if (is_shared) return;
    for (int row = 0; row < count; ++row) finish(state_of(row), shape.head_dim, out + offset_of(row));
}

void Attention::merge_token(const SplitToken& token, float* state, int size, const AttentionShape& shape,
                            float* out) const {
    const int group = shape.num_heads / shape.num_kv_heads;
    float* result = out + static_cast<size_t>(token.index) * shape.num_heads * shape.head_dim;
    for (int head = 0; head < shape.num_heads; ++head) {
        clear(state, size);
        for (int partition = 0; partition < token.num_partitions; ++partition) {
            const size_t task = static_cast<size_t>(head / group) * token.num_partitions + partition;
            merge(state, partials_.data() + (token.first_partial + task * token.num_rows + head % group) * size, size);
        }
        finish(state, shape.head_dim, result + static_cast<size_t>(head) * shape.head_dim);
    }
}

}  // namespace layerscale
