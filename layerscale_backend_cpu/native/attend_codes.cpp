// Attention over keys and values of 8 or 4 bits, without unpacking them: queries and weights become 16-bit integers and
// meet the codes in integer dot products, whose sums are exact.
//
// A key's scale folds into its score and a value's into its weight. 127 * 32767 * 512 < 2^31: a partition's sum over value
// codes cannot overflow.
#include <cstring>
#include <numeric>

#include "attend.h"

namespace layerscale {

namespace {

constexpr float kInt16Range = 32767.0f;
constexpr int kLargestInt8Head = 512;  // dimensions whose products of 16 and 8 bits a 32-bit sum holds

// How codes lie in a word: pair<n> are the n-th two neighbours, as 16-bit numbers.
struct Int8Codes {
    static constexpr int kPairs = 2;
    static constexpr bool kHasMinima = false;
    static constexpr int kDimsPerLane = 1;  // of value codes
    template <int n> static Vi pair(Vi word) { return n == 0 ? low_bytes(word) : high_bytes(word); }
};

struct Int4Codes {
    static constexpr int kPairs = 4;
    static constexpr bool kHasMinima = true;
    static constexpr int kDimsPerLane = 2;
    template <int n> static Vi pair(Vi word) { return and_int(shift_right<4 * n>(word), set1_int(0x000f000f)); }
};

// Values [count] to codes of 16 bits with one scale, which is returned; NaN where one of them is not finite.
float round_to_int16(const float* x, int count, float range, int16_t* codes) {
    Vf largest = zero(), broken = zero();
    for (int i = 0; i < count; i += kLanes) {
        largest = max(largest, abs(load(x + i)));
        broken = add(broken, mul(load(x + i), zero()));
    }
    const float most = reduce_max(largest), inverse = most > 0.0f ? range / most : 0.0f;
    for (int i = 0; i < count; i += kLanes) store_int16(codes + i, to_int(mul(load(x + i), set1(inverse))));
    return most / range + reduce_add(broken);
}

Vi broadcast_pair(const int16_t* codes) {
    int32_t pair;
    std::memcpy(&pair, codes, sizeof pair);
    return set1_int(pair);
}

struct Query {
    const int16_t* codes;
    float scale;                 // of the codes, times the attention's own
    const float* group_sums;     // sum of the codes of each group of key dimensions, where keys have minima
};

template <typename Codes, int kRows>
void score_page(const KvFormat& format, const uint8_t* keys, const uint8_t* ahead, const Query* queries,
                Vf (&scores)[kRows]) {
    const int words_per_group = format.num_words() / format.num_key_groups();
    for (int row = 0; row < kRows; ++row) scores[row] = zero();
    for (int group = 0; group < format.num_key_groups(); ++group) {
        Vi sums[kRows];
        for (int row = 0; row < kRows; ++row) sums[row] = set1_int(0);
        for (int word = group * words_per_group; word < (group + 1) * words_per_group; ++word) {
            const size_t offset = static_cast<size_t>(word) * kLanes * sizeof(uint32_t);
            prefetch(ahead + offset);
            const Vi codes = load_int(keys + offset);
            const auto add_pair = [&](Vi pair, int n) {
                for (int row = 0; row < kRows; ++row)
                    sums[row] = dot_pairs(sums[row], pair,
                                          broadcast_pair(queries[row].codes + 2 * (word * Codes::kPairs + n)));
            };
            add_pair(Codes::template pair<0>(codes), 0);
            add_pair(Codes::template pair<1>(codes), 1);
            if constexpr (Codes::kPairs == 4) {
                add_pair(Codes::template pair<2>(codes), 2);
                add_pair(Codes::template pair<3>(codes), 3);
            }
        }
        const Vf scales = load_half(format.scales(keys) + group * kLanes);
        for (int row = 0; row < kRows; ++row) {
            scores[row] = fma(to_float(sums[row]), scales, scores[row]);
            if constexpr (Codes::kHasMinima) {
                const Vf minima = load_half(format.key_minima(keys) + group * kLanes);
                scores[row] = fma(set1(queries[row].group_sums[group]), minima, scores[row]);
            }
        }
    }
    for (int row = 0; row < kRows; ++row) scores[row] = mul(scores[row], set1(queries[row].scale));
}

// A row's weights for one group of value dimensions: each key's exponential times the scale of its value, as codes.
struct Weights {
    const int16_t* codes;  // [kPartitionKeys]
    float scale;
    float offset;          // what the minima add to every dimension of the group
};

template <typename Codes>
Weights fold_scales(const Keys& keys, const float* exponentials, int group, float* weights, int16_t* codes) {
    const KvFormat& format = keys.kv->format();
    const Vf least = set1(std::numeric_limits<float>::min());
    Vf offset = zero();
    for (int p = 0; p < keys.num_pages; ++p) {
        const uint8_t* values = keys.values_of(p);
        const Vf exponential = load(exponentials + p * kPageSize);
        // A key that is not seen weighs nothing, also where its slot holds NaN for the scale.
        const Vf scales = load_half(format.scales(values) + group * kPageSize);
        store(weights + p * kPageSize, zero_if_less(exponential, least, mul(exponential, scales)));
        if constexpr (Codes::kHasMinima) {
            const Vf minima = load_half(format.value_minima(values) + group * kPageSize);
            offset = add(offset, zero_if_less(exponential, least, mul(exponential, minima)));
        }
    }
    const float scale = round_to_int16(weights, keys.num_pages * kPageSize, kInt16Range, codes);
    return {codes, scale, reduce_add(offset)};
}

// Values = weights . codes over the partition, kVectors * 16 lanes at a time; kHalf is the dimension within a lane. Lanes
// from `stop` on are not stored: they are another group's, or lie behind the head.
template <typename Codes, int kHalf, int kRows, int kVectors>
void weigh_values(const Keys& keys, const Rows& rows, const Weights* weights, int lane, int stop) {
    const KvFormat& format = keys.kv->format();
    Vi sums[kRows][kVectors];
    unroll<kRows>([&](auto row) { unroll<kVectors>([&](auto v) { sums[row][v] = set1_int(0); }); });
    for (int p = 0; p < keys.num_pages; ++p) {
        const uint8_t* values = keys.values_of(p) + lane * sizeof(uint32_t);
        for (int four = 0; four < kPageSize; four += 4, values += format.num_lanes() * sizeof(uint32_t)) {
            const int key = p * kPageSize + four;
            unroll<kVectors>([&](auto v) {
                const Vi word = load_int(values + v * kLanes * sizeof(uint32_t));
                const Vi first = Codes::template pair<kHalf>(word);
                const Vi second = Codes::template pair<kHalf + Codes::kDimsPerLane>(word);
                unroll<kRows>([&](auto row) {
                    sums[row][v] = dot_pairs(sums[row][v], first, broadcast_pair(weights[row].codes + key));
                    sums[row][v] = dot_pairs(sums[row][v], second, broadcast_pair(weights[row].codes + key + 2));
                });
            });
        }
    }
    unroll<kRows>([&](auto row) {
        unroll<kVectors>([&](auto v) {
            store_lanes(rows.partials[row] + kValues + kHalf * format.num_lanes(), lane + v * kLanes, stop,
                        fma(to_float(sums[row][v]), set1(weights[row].scale), set1(weights[row].offset)));
        });
    });
}

// The dimensions of one group that are the kHalf-th of their lanes.
template <typename Codes, int kHalf, int kRows>
void weigh_group(const Keys& keys, const Rows& rows, const Weights* weights, int group) {
    const KvFormat& format = keys.kv->format();
    const int first_dim = kHalf * format.num_lanes();
    int lane = std::max(group * format.value_group_size() - first_dim, 0);
    const int stop = std::min((group + 1) * format.value_group_size() - first_dim, format.num_lanes());
    for (; lane + kValueVectors * kLanes <= stop; lane += kValueVectors * kLanes)
        weigh_values<Codes, kHalf, kRows, kValueVectors>(keys, rows, weights, lane, stop);
    for (; lane < stop; lane += kLanes) weigh_values<Codes, kHalf, kRows, 1>(keys, rows, weights, lane, stop);
}

template <typename Codes>
Query round_query(const KvFormat& format, const float* query, float scale, float* padded, int16_t* codes,
                  float* group_sums) {
    const int head_dim = format.head_dim(), size = (head_dim + 2 * kLanes - 1) / kLanes * kLanes;
    std::fill(std::copy_n(query, head_dim, padded), padded + size, 0.0f);
    const float range = kInt16Range * std::min(1.0f, static_cast<float>(kLargestInt8Head) / head_dim);
    const float code_scale = round_to_int16(padded, size, range, codes);
    if constexpr (Codes::kHasMinima)
        for (int group = 0; group < format.num_key_groups(); ++group) {
            const int16_t* first = codes + group * format.key_group_size();
            group_sums[group] = static_cast<float>(std::accumulate(first, first + format.key_group_size(), 0));
        }
    return {codes, code_scale * scale, group_sums};
}

template <typename Codes, int kRows>
void attend(const Keys& keys, const Rows& rows, const Scoring& scoring, AttendScratch& scratch) {
    const KvFormat& format = keys.kv->format();
    const size_t query_size = scratch.query_codes.size() / kRowTile;
    Query queries[kRows];
    for (int row = 0; row < kRows; ++row)
        queries[row] = round_query<Codes>(format, rows.queries[row], scoring.scale, scratch.weights.data(),
                                          scratch.query_codes.data() + row * query_size,
                                          scratch.group_sums.data() + row * format.num_key_groups());
    for (int p = 0, before = keys.num_before; p < keys.num_pages; before += keys.num_keys(p++)) {
        Vf scores[kRows];
        score_page<Codes, kRows>(format, keys.keys_of(p), keys.keys_of(keys.ahead_of(p)), queries, scores);
        put_scores<kRows>(keys, rows, scoring.softcap, p, before, scores, scratch.scores.data());
    }
    exponentiate_rows(keys, rows, scratch.scores.data());
    for (int group = 0; group < format.num_value_groups(); ++group) {
        Weights weights[kRows];
        for (int row = 0; row < kRows; ++row)
            weights[row] = fold_scales<Codes>(keys, scratch.scores.data() + row * kPartitionKeys, group,
                                              scratch.weights.data(), scratch.weight_codes.data() + row * kPartitionKeys);
        weigh_group<Codes, 0, kRows>(keys, rows, weights, group);
        if constexpr (Codes::kDimsPerLane == 2) weigh_group<Codes, 1, kRows>(keys, rows, weights, group);
    }
}

template <typename Codes>
void attend_tiles(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch) {
    for (const Rows& rows : tiles)
        with_row_count(rows.count, [&](auto count) { attend<Codes, count>(keys, rows, scoring, scratch); });
}

}  // namespace

void attend_codes(const Keys& keys, const Tiles& tiles, const Scoring& scoring, AttendScratch& scratch) {
    const KvFormat& format = keys.kv->format();
    const size_t padded_dim = (format.head_dim() + 2 * kLanes - 1) / kLanes * kLanes;
    scratch.scores.resize(kRowTile * kPartitionKeys);
    scratch.weights.resize(std::max<size_t>(kPartitionKeys, padded_dim));
    scratch.weight_codes.resize(kRowTile * kPartitionKeys);
    scratch.query_codes.resize(kRowTile * padded_dim);
    scratch.group_sums.resize(kRowTile * format.num_key_groups());
    if (format.type() == KvType::kInt8) attend_tiles<Int8Codes>(keys, tiles, scoring, scratch);
    else attend_tiles<Int4Codes>(keys, tiles, scoring, scratch);
}

}  // namespace layerscale
