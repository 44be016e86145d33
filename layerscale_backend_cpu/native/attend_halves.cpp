// Attention over keys and values in half precision.
#include "attend.h"

namespace layerscale {

namespace {

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

// Values = weights . values over the partition, kVectors * 16 dimensions at a time. Slots outside a page's valid range are
// never read: what a page held for an earlier owner cannot reach a result, not even as 0 * NaN. The last vector of a head
// of odd width reads into the next row, and those lanes are dropped.
template <int kRows, int kVectors>
void weigh_values(const Keys& keys, const Rows& rows, const float* weights, int dim) {
    Vf sums[kRows][kVectors];
    for (auto& row : sums)
        for (Vf& sum : row) sum = zero();
    const int stride = keys.kv->format().head_dim();
    for (int p = 0; p < keys.num_pages; ++p) {
        const uint16_t* values =
            reinterpret_cast<const uint16_t*>(keys.kv->values(keys.layer, keys.pages[p], keys.kv_head)) + dim;
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
        for (int v = 0; v < kVectors; ++v)
            store_lanes(rows.partials[row] + kValues, dim + v * kLanes, stride, sums[row][v]);
}

template <int kRows>
void attend(const Keys& keys, const Rows& rows, const Scoring& scoring, float* scores) {
    const int head_dim = keys.kv->format().head_dim();
    weigh_keys<kRows>(keys, rows, scoring.softcap, scores, [&](int p, Vf (&page_scores)[kRows]) {
        const uint8_t* page = keys.kv->keys(keys.layer, keys.pages[p], keys.kv_head);
        score_page<kRows>(reinterpret_cast<const uint16_t*>(page), rows.queries, head_dim, set1(scoring.scale), page_scores);
    });
    int dim = 0;
    for (; dim + kValueVectors * kLanes <= head_dim; dim += kValueVectors * kLanes)
        weigh_values<kRows, kValueVectors>(keys, rows, scores, dim);
    for (; dim < head_dim; dim += kLanes) weigh_values<kRows, 1>(keys, rows, scores, dim);
}

}  // namespace

void attend_halves(const Keys& keys, const Rows& rows, const Scoring& scoring, AttendScratch& scratch) {
    scratch.scores.resize(kRowTile * kPartitionKeys);
    switch (rows.count) {
        case 1: return attend<1>(keys, rows, scoring, scratch.scores.data());
        case 2: return attend<2>(keys, rows, scoring, scratch.scores.data());
        case 3: return attend<3>(keys, rows, scoring, scratch.scores.data());
        default: return attend<4>(keys, rows, scoring, scratch.scores.data());
    }
}

}  // namespace layerscale
