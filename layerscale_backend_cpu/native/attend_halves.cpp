// Attention over keys and values in half precision.
#include "attend.h"

namespace layerscale {

namespace {

const uint16_t* as_halves(const uint8_t* part) { return reinterpret_cast<const uint16_t*>(part); }

// The scores of kRows queries against one page: 16 keys a vector, even and odd dimensions in two chains. Two dimensions are
// a cache line; the same of the page `ahead` is fetched meanwhile.
template <int kRows>
void score_page(const uint16_t* keys, const uint16_t* ahead, const float* const* queries, int head_dim, Vf scale,
                Vf (&scores)[kRows]) {
    Vf even[kRows], odd[kRows];
    for (int row = 0; row < kRows; ++row) even[row] = odd[row] = zero();
    int dim = 0;
    for (; dim + 1 < head_dim; dim += 2) {
        prefetch(ahead + dim * kPageSize);
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
    unroll<kRows>([&](auto row) { unroll<kVectors>([&](auto v) { sums[row][v] = zero(); }); });
    const ptrdiff_t stride = keys.kv->format().head_dim();
    for (int p = 0; p < keys.num_pages; ++p) {
        const int start = keys.starts[p], stop = keys.stops[p];
        const uint16_t* values = as_halves(keys.values_of(p)) + dim + start * stride;
        const uint16_t* ahead = as_halves(keys.values_of(keys.ahead_of(p))) + dim + start * stride;
        const float* weight = weights + p * kPageSize + start;
        for (const float* const end = weight + (stop - start); weight < end; ++weight, values += stride, ahead += stride) {
            for (int v = 0; v < kVectors; v += 2) prefetch(ahead + v * kLanes);
            Vf value[kVectors];
            unroll<kVectors>([&](auto v) { value[v] = load_half(values + v * kLanes); });
            unroll<kRows>([&](auto row) {
                const Vf factor = set1(weight[row * ptrdiff_t{kPartitionKeys}]);
                unroll<kVectors>([&](auto v) { sums[row][v] = fma(factor, value[v], sums[row][v]); });
            });
        }
    }
    unroll<kRows>([&](auto row) {
        unroll<kVectors>([&](auto v) {
            store_lanes(rows.partials[row] + kValues, dim + v * kLanes, static_cast<int>(stride), sums[row][v]);
        });
    });
}

template <int kRows>
void attend(const Keys& keys, const Rows& rows, const Scoring& scoring, float* scores) {
    const int head_dim = keys.kv->format().head_dim();
    for (int p = 0, before = keys.num_before; p < keys.num_pages; before += keys.num_keys(p++)) {
        Vf page_scores[kRows];
        score_page<kRows>(as_halves(keys.keys_of(p)), as_halves(keys.keys_of(keys.ahead_of(p))), rows.queries, head_dim,
                          set1(scoring.scale), page_scores);
        put_scores<kRows>(keys, rows, scoring.softcap, p, before, page_scores, scores);
    }
    exponentiate_rows(keys, rows, scores);
    int dim = 0;
    for (; dim + kValueVectors * kLanes <= head_dim; dim += kValueVectors * kLanes)
        weigh_values<kRows, kValueVectors>(keys, rows, scores, dim);
    for (; dim < head_dim; dim += kLanes) weigh_values<kRows, 1>(keys, rows, scores, dim);
}

}  // namespace

void attend_halves(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch) {
    scratch.scores.resize(kRowTile * kPartitionKeys);
    for (const Rows& rows : tiles)
        with_row_count(rows.count, [&](auto count) { attend<count>(keys, rows, scoring, scratch.scores.data()); });
}

}  // namespace layerscale
