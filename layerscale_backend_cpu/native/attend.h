// The softmax of a few query rows over one partition of a sequence's keys: what attention is made of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "buffer.h"
#include "elementwise.h"
#include "kv_cache.h"

namespace layerscale {

constexpr int kPartitionPages = 32;                 // pages whose softmax is taken at once
constexpr int kPartitionKeys = kPartitionPages * kPageSize;
constexpr int kRowTile = kParts == 1 ? 6 : 4;       // query rows that share a read of keys and values
constexpr int kMaxTiles = 16;                       // that are computed over one partition before the next
constexpr int kValueVectors = kParts == 1 ? 4 : 1;  // accumulators of more would not fit the registers
constexpr int kPagesAhead = 4;                      // pages are too short for the processor to foresee what follows them
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// A row's softmax over some keys: [maximum, sum of exponentials], and from the next whole vector on the weighted sum of
// values.
constexpr int kMaximum = 0, kSum = 1, kValues = kLanes;

struct Keys {  // the pages of one partition of a sequence
    const KvCache* kv;
    int layer;
    int kv_head;
    int num_pages;
    const int32_t* pages;
    const int32_t* starts;
    const int32_t* stops;
    int num_before;  // keys in earlier partitions

    const uint8_t* keys_of(int page) const { return kv->keys(layer, pages[page], kv_head); }
    const uint8_t* values_of(int page) const { return kv->values(layer, pages[page], kv_head); }
    int num_keys(int page) const { return stops[page] - starts[page]; }
    // The page to fetch while `page` is read.
    int ahead_of(int page) const { return std::min(page + kPagesAhead, num_pages - 1); }
};

struct Scoring {
    float scale;    // on query . key
    float softcap;  // see soft_cap; 0 = none
};

struct Rows {  // up to kRowTile queries of one KV head
    int count;
    const float* queries[kRowTile];
    int num_visible[kRowTile];   // keys of the sequence up to the last that each may see
    int num_hidden[kRowTile];    // of those, how many lie before its window
    float* partials[kRowTile];   // where the results go
};

struct Tiles {
    const Rows* rows;
    int count;

    const Rows* begin() const { return rows; }
    const Rows* end() const { return rows + count; }
};

// One thread's working memory.
struct AttendScratch {
    Floats scores;  // [tile][kRowTile][kPartitionKeys]
    Floats weights;
    // For bfloats alone:
    Buffer<uint32_t> pairs, queries;
    // For codes alone:
    Floats group_sums;
    Buffer<int16_t> query_codes, weight_codes;
};

void attend_halves(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch);
// The same with everything rounded to bfloat16, at about twice the speed. Needs has_bfloat_pairs().
void attend_bfloats(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch);
void attend_codes(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch);

// Scores of keys the row may not see become -infinity: slots outside the page's valid range, tokens before the window, and
// later ones.
inline void mask_page(float* scores, int start, int stop, int num_hidden, int num_visible) {
    stop = std::min(stop, start + std::max(num_visible, 0));
    start += std::max(num_hidden, 0);
    for (int slot = 0; slot < kPageSize; ++slot)
        if (slot < start || slot >= stop) scores[slot] = kMinusInfinity;
}

// Scores [num_keys] to exponentials in place; returns their maximum and sum.
inline void exponentiate(float* scores, int num_keys, float* maximum, float* sum) {
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

// Puts a page's scores where they belong in `scores` [kRows][kPartitionKeys], capped and masked. `before`: keys of the sequence
// in earlier pages.
template <int kRows>
void put_scores(const Keys& keys, const Rows& rows, float softcap, int page, int before, const Vf (&page_scores)[kRows],
                float* scores) {
    const int start = keys.starts[page], stop = keys.stops[page];
    for (int row = 0; row < kRows; ++row) {
        float* out = scores + row * kPartitionKeys + page * kPageSize;
        store(out, softcap > 0.0f ? soft_cap(page_scores[row], softcap) : page_scores[row]);
        if (start > 0 || stop < kPageSize || before < rows.num_hidden[row] || before + stop - start > rows.num_visible[row])
            mask_page(out, start, stop, rows.num_hidden[row] - before, rows.num_visible[row] - before);
    }
}

// Scores to exponentials, row by row; maxima and sums go to the partials.
inline void exponentiate_rows(const Keys& keys, const Rows& rows, float* scores) {
    for (int row = 0; row < rows.count; ++row)
        exponentiate(scores + row * kPartitionKeys, keys.num_pages * kPageSize, rows.partials[row] + kMaximum,
                     rows.partials[row] + kSum);
}

// Calls attend(std::integral_constant<int, count>()), 1 <= count <= kRowTile.
template <int kRows = kRowTile, typename Attend>
void with_row_count(int count, const Attend& attend) {
    if constexpr (kRows > 1)
        if (count < kRows) return with_row_count<kRows - 1>(count, attend);
    attend(std::integral_constant<int, kRows>());
}

// Writes the lanes of a vector that lie before `stop`.
inline void store_lanes(float* out, int lane, int stop, Vf a) {
    if (lane + kLanes <= stop) return store(out + lane, a);
    float lanes[kLanes];
    store(lanes, a);
    for (int i = 0; lane + i < stop; ++i) out[lane + i] = lanes[i];
}

}  // namespace layerscale
