// Attention over keys and values in half precision, with everything rounded to bfloat16 as it is multiplied.
//
// A vector's 32-bit lanes are pairs: two dimensions of a key, or one of two keys' values. What several tiles of queries meet is
// made once for all of them; a lone tile uses what it makes at once.
#include <cstring>

#include "attend.h"

namespace layerscale {

#ifdef LAYERSCALE_BFLOAT_PAIRS

namespace {

constexpr int kPagePairs = kPageSize / 2;
constexpr int kPagesAtOnce = 8;  // whose values, or 64 dimensions of them, fit the nearest cache as pairs

using Pair = uint32_t;

const uint16_t* as_halves(const uint8_t* part) { return reinterpret_cast<const uint16_t*>(part); }

Vi make_pairs(Vf first, Vf second) { return interleave_halves(to_bfloats(first, second)); }
Vi load_pairs(const Pair* pairs) { return load_int(reinterpret_cast<const uint8_t*>(pairs)); }
void store_pairs(Pair* out, Vi pairs) { store_int(reinterpret_cast<int32_t*>(out), pairs); }

Vi broadcast(const Pair* pair) {
    int32_t bits;
    std::memcpy(&bits, pair, sizeof(bits));
    return set1_int(bits);
}

// The pairs of neighbours in a row [count], in place: `out` may be x. The row reaches to a whole two vectors.
void pair_neighbours(const float* x, int count, void* out) {
    for (int i = 0; i < count; i += 2 * kLanes)
        store_pairs(static_cast<Pair*>(out) + i / 2, to_bfloats(load(x + i), load(x + i + kLanes)));
}

// Pairs of vectors as they were stored.
struct StoredPairs {
    const Pair* pairs;
    Vi operator()(int index) const { return load_pairs(pairs + index * kLanes); }
};

// The next two dimensions of a page's 16 keys, made of its halves.
struct KeyPairs {
    const uint16_t* halves;
    const uint16_t* ahead;
    int head_dim;

    KeyPairs(const Keys& keys, int page)
        : halves(as_halves(keys.keys_of(page))), ahead(as_halves(keys.keys_of(keys.ahead_of(page)))),
          head_dim(keys.kv->format().head_dim()) {}

    LAYERSCALE_INLINE Vi operator()(int pair) const {
        const int first = 2 * pair * kPageSize, second = first + kPageSize;
        prefetch(ahead + first);
        return make_pairs(load_half(halves + first), 2 * pair + 1 < head_dim ? load_half(halves + second) : zero());
    }
};

// 16 dimensions of the values of a page's next two keys, made of their halves. Slots outside the page's valid range are never
// read: what a page held for an earlier owner cannot reach a result, not even as 0 * NaN. The last vector of a head of odd width
// reads into the next row, and those lanes are dropped.
struct ValuePairs {
    const uint16_t* halves;
    const uint16_t* ahead;
    ptrdiff_t head_dim;
    int start, stop;

    ValuePairs(const Keys& keys, int page, int first_dim)
        : halves(as_halves(keys.values_of(page)) + first_dim),
          ahead(as_halves(keys.values_of(keys.ahead_of(page))) + first_dim), head_dim(keys.kv->format().head_dim()),
          start(keys.starts[page]), stop(keys.stops[page]) {}

    LAYERSCALE_INLINE Vi operator()(int pair, int vector) const {
        const int slot = 2 * pair;
        const ptrdiff_t place = slot * head_dim + vector * kLanes;
        if (vector % 2 == 0) prefetch(ahead + place), prefetch(ahead + place + head_dim);
        return make_pairs(slot >= start && slot < stop ? load_half(halves + place) : zero(),
                          slot + 1 >= start && slot + 1 < stop ? load_half(halves + place + head_dim) : zero());
    }
};

// The scores of kRows queries against one page: 16 keys a vector, even and odd pairs in two chains.
template <int kRows, typename Pairs>
LAYERSCALE_INLINE void score_page(const Pairs& keys, int num_pairs, const Pair* queries, int query_stride, Vf scale, Vf (&scores)[kRows]) {
    Vf even[kRows], odd[kRows];
    unroll<kRows>([&](auto row) { even[row] = odd[row] = zero(); });
    int pair = 0;
    for (; pair + 1 < num_pairs; pair += 2) {
        const Vi first = keys(pair), second = keys(pair + 1);
        unroll<kRows>([&](auto row) {
            const Pair* query = queries + row * ptrdiff_t{query_stride} + pair;
            even[row] = dot_bfloat_pairs(even[row], first, broadcast(query));
            odd[row] = dot_bfloat_pairs(odd[row], second, broadcast(query + 1));
        });
    }
    if (pair < num_pairs) {
        const Vi last = keys(pair);
        unroll<kRows>([&](auto row) {
            even[row] = dot_bfloat_pairs(even[row], last, broadcast(queries + row * ptrdiff_t{query_stride} + pair));
        });
    }
    unroll<kRows>([&](auto row) { scores[row] = mul(add(even[row], odd[row]), scale); });
}

float* scores_of(AttendScratch& scratch, int tile) {
    return scratch.scores.data() + static_cast<size_t>(tile) * kRowTile * kPartitionKeys;
}

// Every query's exponentials, as pairs of neighbouring keys.
void weigh_keys(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch) {
    const int head_dim = keys.kv->format().head_dim(), num_pairs = (head_dim + 1) / 2;
    const int query_size = (head_dim + 2 * kLanes - 1) / (2 * kLanes) * (2 * kLanes), query_stride = query_size / 2;
    grow(scratch.queries, static_cast<size_t>(tiles.count) * kRowTile * query_stride);
    grow(scratch.pairs, static_cast<size_t>(num_pairs) * kLanes);
    scratch.weights.resize(query_size);
    const auto queries_of = [&](int tile) { return scratch.queries.data() + tile * kRowTile * ptrdiff_t{query_stride}; };
    for (int tile = 0; tile < tiles.count; ++tile)
        for (int row = 0; row < tiles.rows[tile].count; ++row) {
            std::copy_n(tiles.rows[tile].queries[row], head_dim, scratch.weights.data());
            pair_neighbours(scratch.weights.data(), head_dim, queries_of(tile) + row * ptrdiff_t{query_stride});
        }

    for (int p = 0, before = keys.num_before; p < keys.num_pages; before += keys.num_keys(p++)) {
        const KeyPairs page(keys, p);
        const auto score = [&](int tile, const auto& pairs) {
            with_row_count(tiles.rows[tile].count, [&](auto count) {
                Vf scores[count];
                score_page<count>(pairs, num_pairs, queries_of(tile), query_stride, set1(scoring.scale), scores);
                put_scores<count>(keys, tiles.rows[tile], scoring.softcap, p, before, scores, scores_of(scratch, tile));
            });
        };
        if (tiles.count == 1) {
            score(0, page);
            continue;
        }
        for (int pair = 0; pair < num_pairs; ++pair) store_pairs(scratch.pairs.data() + pair * kLanes, page(pair));
        for (int tile = 0; tile < tiles.count; ++tile) score(tile, StoredPairs{scratch.pairs.data()});
    }
    for (int tile = 0; tile < tiles.count; ++tile) {
        exponentiate_rows(keys, tiles.rows[tile], scores_of(scratch, tile));
        for (int row = 0; row < tiles.rows[tile].count; ++row) {
            float* weights = scores_of(scratch, tile) + row * kPartitionKeys;
            pair_neighbours(weights, keys.num_pages * kPageSize, weights);
        }
    }
}

// Adds weights . values of pages [first, last) to kVectors * 16 dimensions of the partials; values_of(page)(pair, vector).
template <int kRows, int kVectors, typename ValuesOf>
LAYERSCALE_INLINE void add_values(const Rows& rows, const float* weights, int first, int last, int dim,
                                  const ValuesOf& values_of) {
    Vf sums[kRows][kVectors];
    unroll<kRows>([&](auto row) {
        unroll<kVectors>([&](auto v) { sums[row][v] = load(rows.partials[row] + kValues + dim + v * kLanes); });
    });
    const Pair* weight = reinterpret_cast<const Pair*>(weights) + first * kPagePairs;
    for (int page = first; page < last; ++page) {
        const auto values = values_of(page);
        for (int pair = 0; pair < kPagePairs; ++pair, ++weight) {
            Vi value[kVectors];
            unroll<kVectors>([&](auto v) { value[v] = values(pair, v); });
            unroll<kRows>([&](auto row) {
                const Vi factor = broadcast(weight + row * ptrdiff_t{kPartitionKeys});
                unroll<kVectors>([&](auto v) { sums[row][v] = dot_bfloat_pairs(sums[row][v], value[v], factor); });
            });
        }
    }
    unroll<kRows>([&](auto row) {
        unroll<kVectors>([&](auto v) { store(rows.partials[row] + kValues + dim + v * kLanes, sums[row][v]); });
    });
}

template <int kVectors>
void weigh_values(const Keys& keys, const Tiles& tiles, int dim, AttendScratch& scratch) {
    const auto made = [&](int page) { return ValuePairs(keys, page, dim); };
    const auto add = [&](int tile, int first, int last, const auto& values_of) {
        with_row_count(tiles.rows[tile].count, [&](auto count) {
            add_values<count, kVectors>(tiles.rows[tile], scores_of(scratch, tile), first, last, dim, values_of);
        });
    };
    if (tiles.count == 1) return add(0, 0, keys.num_pages, made);
    constexpr int kPageSpan = kPagePairs * kVectors;
    grow(scratch.pairs, static_cast<size_t>(kPagesAtOnce) * kPageSpan * kLanes);
    for (int first = 0; first < keys.num_pages; first += kPagesAtOnce) {
        const int last = std::min(first + kPagesAtOnce, keys.num_pages);
        Pair* out = scratch.pairs.data();
        for (int page = first; page < last; ++page) {
            const ValuePairs values = made(page);
            for (int pair = 0; pair < kPagePairs; ++pair)
                for (int v = 0; v < kVectors; ++v, out += kLanes) store_pairs(out, values(pair, v));
        }
        const auto stored = [&](int page) {
            const StoredPairs values{scratch.pairs.data() + (page - first) * kPageSpan * kLanes};
            return [=](int pair, int v) { return values(pair * kVectors + v); };
        };
        for (int tile = 0; tile < tiles.count; ++tile) add(tile, first, last, stored);
    }
}

}  // namespace

void attend_bfloats(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch) {
    const int head_dim = keys.kv->format().head_dim();
    grow(scratch.scores, static_cast<size_t>(tiles.count) * kRowTile * kPartitionKeys);
    weigh_keys(keys, tiles, scoring, scratch);
    for (const Rows& rows : tiles)
        for (int row = 0; row < rows.count; ++row)
            for (int dim = 0; dim < head_dim; dim += kLanes) store(rows.partials[row] + kValues + dim, zero());
    int dim = 0;
    for (; dim + kValueVectors * kLanes <= head_dim; dim += kValueVectors * kLanes)
        weigh_values<kValueVectors>(keys, tiles, dim, scratch);
    for (; dim < head_dim; dim += kLanes) weigh_values<1>(keys, tiles, dim, scratch);
}

#else

void attend_bfloats(const Keys&, const Tiles&, const Scoring&, AttendScratch&) {}

#endif

}  // namespace layerscale
