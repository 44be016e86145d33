#include "multiply.h"

#include <algorithm>
#include <cstring>

#include "panel.h"

namespace layerscale {

namespace {

constexpr size_t kBytesAhead = 8192;  // of weights, fetched while several tokens are multiplied by those before

// What a kernel is compiled for. A step of a dot product takes 32 bits of a token's codes: four columns of 8 bits, or two of 16.
template <Storage kStorageOf, bool kHasCodebook, int kGroupSizeOf, typename CodeOf>
struct Kind {
    using Code = CodeOf;
    static constexpr Storage kStorage = kStorageOf;
    static constexpr bool kCodebook = kHasCodebook;
    static constexpr int kGroupSize = kGroupSizeOf;
    static constexpr bool kIsBytes = sizeof(Code) == 1;
    static constexpr int kStepColumns = sizeof(int32_t) / sizeof(Code);
    // The same bits of all codes in a step's lane.
    static constexpr int32_t each(int32_t bits) { return bits * (kIsBytes ? 0x01010101 : 0x00010001); }
};

// The codes of a step for all 16 rows: a quad, or the even or odd bytes of one. `kStep` is a template parameter so that every
// shift is an immediate.
template <typename K, int kStep>
LAYERSCALE_INLINE Vi unpack_step(const GroupView& view, Vi table) {
    constexpr int kQuad = K::kIsBytes ? kStep : kStep / 4 * 2 + kStep % 2;
    constexpr int kByteBit = K::kIsBytes ? 0 : kStep % 4 / 2 * 8;
    constexpr Place kLow = low_place(K::kStorage, kQuad), kHigh = high_place(kQuad);
    const Vi words = load_int(view.low + kLow.word * kWordBytes);
    if constexpr (K::kStorage == Storage::kCodes8 && K::kIsBytes) return words;
    const Vi codes = and_int(shift_right<kLow.bit + kByteBit>(words), set1_int(K::each((1 << low_bits(K::kStorage)) - 1)));
    if constexpr (K::kCodebook && K::kIsBytes) return lookup(table, codes);
    if constexpr (K::kCodebook) return and_int(lookup(table, codes), set1_int(K::each(0xff)));
    if constexpr (K::kStorage == Storage::kCodes6) {
        const Vi upper = shift_right<kHigh.bit + kByteBit>(load_int(view.high + kHigh.word * kWordBytes));
        return or_int(codes, shift_left<4>(and_int(upper, set1_int(K::each(3)))));
    }
    return codes;
}

template <typename K>
LAYERSCALE_INLINE Vi dot_step(Vi sum, Vi weights, Vi x) {
    constexpr bool kUsesHighestBit = K::kStorage == Storage::kCodes8 || K::kCodebook;
    if constexpr (K::kIsBytes) return dot_quads<kUsesHighestBit>(sum, weights, x);
    else return dot_pairs(sum, weights, x);
}

// A product's partial sums: integer additions commute exactly, so a lone token may use several chains to hide latency
// and still get the bits that a token in a full tile gets.
template <int kTokens>
constexpr int kChains = kTokens == 1 ? 4 : kTokens == 2 ? 2 : 1;

template <typename K, int kTokens, int kStep, int kEnd>
LAYERSCALE_INLINE void dot_steps(const GroupView& view, Vi table, const typename K::Code* codes,
                                 Vi (&sums)[kTokens][kChains<kTokens>]) {
    if constexpr (kStep < kEnd) {
        const Vi weights = unpack_step<K, kStep>(view, table);
        for (int token = 0; token < kTokens; ++token) {
            int32_t step;
            std::memcpy(&step, codes + token * kGroup + K::kStepColumns * kStep, sizeof(step));
            Vi& sum = sums[token][kStep % kChains<kTokens>];
            sum = dot_step<K>(sum, weights, set1_int(step));
        }
        dot_steps<K, kTokens, kStep + 1, kEnd>(view, table, codes, sums);
    }
}

// Adds scale * (codes . activations) + minimum * (sum of activations) of the index-th scale group of a group.
template <typename K, int kTokens, int kIndex>
LAYERSCALE_INLINE void add_scale_group(const Matrix& matrix, const GroupView& view, Vi table, const typename K::Code* codes,
                                       const float* scales, const float* sums, Vf (&totals)[kTokens]) {
    constexpr int kSteps = K::kGroupSize / K::kStepColumns;
    Vi dots[kTokens][kChains<kTokens>];
    for (auto& token : dots)
        for (Vi& chain : token) chain = set1_int(0);
    dot_steps<K, kTokens, kIndex * kSteps, (kIndex + 1) * kSteps>(view, table, codes, dots);

    const Vf scale = load_half(view.scales + kIndex * kLanes);
    const Vf minimum = view.minima != nullptr ? load_half(view.minima + kIndex * kLanes)
                                              : mul(scale, set1(-matrix.zero_point));
    unroll<kTokens>([&](auto token) {
        Vi dot = dots[token][0];
        for (int chain = 1; chain < kChains<kTokens>; ++chain) dot = add_int(dot, dots[token][chain]);
        totals[token] = fma(to_float(dot), mul(scale, set1(scales[token])), totals[token]);
        totals[token] = fma(minimum, set1(sums[token]), totals[token]);
    });
}

template <typename K, int kTokens>
void dot_codes(const Matrix& matrix, const uint8_t* group, const Activations& x, int token, Vf (&out)[kTokens]) {
    const int tile = token / kTokenTile, first = token % kTokenTile;
    Vf totals[kTokens];  // of this function alone, so that registers hold them
    unroll<kTokens>([&](auto i) { totals[i] = zero(); });
    const size_t stride = matrix.group_bytes();
    const Vi table = K::kCodebook ? load_table(matrix.codebook.data()) : set1_int(0);
    for (int g = 0; g < x.num_groups(); ++g, group += stride) {
        if constexpr (kTokens > 1)  // else the processor does nothing but read, and foresees it by itself
            for (size_t line = 0; line < stride; line += kCacheLine) prefetch(group + kBytesAhead + line);
        const GroupView view = view_group(matrix, group);
        const auto* codes = x.codes<typename K::Code>(tile, g) + first * kGroup;
        const float* scales = x.scales(tile, g) + first;
        const float* sums = x.sums(tile, g) + first;
        if constexpr (K::kGroupSize == kGroup) {
            add_scale_group<K, kTokens, 0>(matrix, view, table, codes, scales, sums + 2 * kTokenTile, totals);
        } else {
            add_scale_group<K, kTokens, 0>(matrix, view, table, codes, scales, sums, totals);
            add_scale_group<K, kTokens, 1>(matrix, view, table, codes, scales, sums + kTokenTile, totals);
        }
    }
    unroll<kTokens>([&](auto i) { out[i] = totals[i]; });
}

template <int kTokens>
void dot_floats(const Matrix& matrix, const uint8_t* panel, const float* x, Vf (&totals)[kTokens]) {
    Vf odd[kTokens];  // even and odd columns in two chains, whatever the number of tokens
    unroll<kTokens>([&](auto token) { totals[token] = odd[token] = zero(); });
    int column = 0;
    for (; column + 1 < matrix.cols; column += 2) {
        const Vf even_weights = load_weights(matrix, panel, column);
        const Vf odd_weights = load_weights(matrix, panel, column + 1);
        unroll<kTokens>([&](auto token) {
            const float* row = x + static_cast<size_t>(token) * matrix.cols + column;
            totals[token] = fma(even_weights, set1(row[0]), totals[token]);
            odd[token] = fma(odd_weights, set1(row[1]), odd[token]);
        });
    }
    unroll<kTokens>([&](auto token) {
        if (column < matrix.cols) {
            const float last = x[static_cast<size_t>(token) * matrix.cols + column];
            totals[token] = fma(load_weights(matrix, panel, column), set1(last), totals[token]);
        }
        totals[token] = add(totals[token], odd[token]);
    });
}

template <typename Code, int kTokens>
void dot_quantized(const Matrix& matrix, const uint8_t* panel, const Activations& x, int token, Vf (&totals)[kTokens]) {
    const bool wide = matrix.group_size == kGroup;
    const auto dot = [&](auto kind) { dot_codes<decltype(kind)>(matrix, panel, x, token, totals); };
    switch (matrix.storage) {
        case Storage::kCodes4:
            if (matrix.has_codebook) return dot(Kind<Storage::kCodes4, true, 32, Code>());
            return wide ? dot(Kind<Storage::kCodes4, false, 32, Code>()) : dot(Kind<Storage::kCodes4, false, 16, Code>());
        case Storage::kCodes6:
            return wide ? dot(Kind<Storage::kCodes6, false, 32, Code>()) : dot(Kind<Storage::kCodes6, false, 16, Code>());
        default:
            return wide ? dot(Kind<Storage::kCodes8, false, 32, Code>()) : dot(Kind<Storage::kCodes8, false, 16, Code>());
    }
}

template <int kTokens>
void dot_any(const Matrix& matrix, const uint8_t* panel, const Activations& x, const float* floats, int token,
             Vf (&totals)[kTokens]) {
    if (!matrix.is_quantized()) dot_floats(matrix, panel, floats + static_cast<size_t>(token) * matrix.cols, totals);
    else if (x.bits() == 8) dot_quantized<int8_t>(matrix, panel, x, token, totals);
    else dot_quantized<int16_t>(matrix, panel, x, token, totals);
}

void store_lanes(float* out, Vf values, int count, Store mode) {
    if (count == kLanes) {
        store(out, mode == Store::kAdd ? add(load(out), values) : values);
        return;
    }
    float lanes[kLanes];
    store(lanes, values);
    for (int lane = 0; lane < count; ++lane) out[lane] = mode == Store::kAdd ? out[lane] + lanes[lane] : lanes[lane];
}

template <int kTokens>
void multiply_tokens(const Matrix& matrix, int index, const Activations& codes, const float* floats, int token,
                     float* out, Store mode) {
    Vf totals[kTokens];
    dot_any<kTokens>(matrix, matrix.panel(index), codes, floats, token, totals);
    const int count = std::min(kLanes, matrix.rows - index * kLanes);
    unroll<kTokens>([&](auto i) {
        store_lanes(out + static_cast<size_t>(token + i) * matrix.rows + index * kLanes, totals[i], count, mode);
    });
}

}  // namespace

void multiply_panel(const Matrix& matrix, int panel, const Activations& codes, const float* floats, int begin, int end,
                    float* out, Store mode) {
    constexpr int kWidest = kParts == 1 ? 8 : 4;  // accumulators of a wider tile would not fit the registers
    int token = begin;
    for (; token + kWidest <= end; token += kWidest)
        multiply_tokens<kWidest>(matrix, panel, codes, floats, token, out, mode);
    if (kWidest > 4 && token + 4 <= end) {
        multiply_tokens<4>(matrix, panel, codes, floats, token, out, mode);
        token += 4;
    }
    if (token + 2 <= end) {
        multiply_tokens<2>(matrix, panel, codes, floats, token, out, mode);
        token += 2;
    }
    if (token < end) multiply_tokens<1>(matrix, panel, codes, floats, token, out, mode);
}

}  // namespace layerscale
