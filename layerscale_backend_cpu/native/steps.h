// A step of a dot product: what 32 bits of a token's codes are multiplied with, for the 16 rows of a panel.
#pragma once

#include <cstring>

#include "multiply.h"
#include "panel.h"

namespace layerscale {

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

// A step's 32 bits of a token's codes of one group.
template <typename K>
LAYERSCALE_INLINE int32_t load_step(const typename K::Code* codes, int step) {
    int32_t bits;
    std::memcpy(&bits, codes + K::kStepColumns * step, sizeof(bits));
    return bits;
}

// One step's products, added to a sum.
template <typename K>
LAYERSCALE_INLINE Vi dot_step(Vi sum, Vi weights, Vi x) {
    constexpr bool kUsesHighestBit = K::kStorage == Storage::kCodes8 || K::kCodebook;
    if constexpr (K::kIsBytes) return dot_quads<kUsesHighestBit>(sum, weights, x);
    else return dot_pairs(sum, weights, x);
}

// Calls body with the Kind that a quantised matrix needs for activations of Code.
template <typename Code, typename Body>
void with_kind(const Matrix& matrix, const Body& body) {
    const bool wide = matrix.group_size == kGroup;
    switch (matrix.storage) {
        case Storage::kCodes4:
            if (matrix.has_codebook) return body(Kind<Storage::kCodes4, true, 32, Code>());
            return wide ? body(Kind<Storage::kCodes4, false, 32, Code>()) : body(Kind<Storage::kCodes4, false, 16, Code>());
        case Storage::kCodes6:
            return wide ? body(Kind<Storage::kCodes6, false, 32, Code>()) : body(Kind<Storage::kCodes6, false, 16, Code>());
        default:
            return wide ? body(Kind<Storage::kCodes8, false, 32, Code>()) : body(Kind<Storage::kCodes8, false, 16, Code>());
    }
}

// Apart, so that it takes no registers where there is nothing to do for it.
__attribute__((noinline)) inline void store_some(Vf values, int count, float* out, Store mode) {
    float lanes[kLanes];
    store(lanes, values);
    for (int lane = 0; lane < count; ++lane) out[lane] = mode == Store::kAdd ? out[lane] + lanes[lane] : lanes[lane];
}

// Stores a panel's lanes in a token's row of products.
LAYERSCALE_INLINE void store_rows(const Matrix& matrix, int panel, Vf values, float* row, Store mode) {
    row += panel * kLanes;
    const int count = matrix.rows - panel * kLanes;
    if (count >= kLanes) store(row, mode == Store::kAdd ? add(load(row), values) : values);
    else store_some(values, count, row, mode);
}

}  // namespace layerscale
