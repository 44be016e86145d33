// Where the codes of a quantised matrix lie within a group of a panel. What packs, unpacks and multiplies them agrees here.
#pragma once

#include "matrix.h"
#include "quads.h"

namespace layerscale {

constexpr size_t kWordBytes = 4 * kLanes;  // one 32-bit word for each row of a panel

constexpr int low_words(Storage storage) { return storage == Storage::kCodes8 ? 8 : 4; }
constexpr int high_words(Storage storage) { return storage == Storage::kCodes6 ? 2 : 0; }
constexpr int low_bits(Storage storage) { return storage == Storage::kCodes8 ? 8 : 4; }
constexpr int kHighBits = 2;

// Where a quad lies: in the bytes of which word, from which bit of each.
struct Place {
    int word;
    int bit;
};

constexpr Place low_place(Storage storage, int quad) {
    const int quads = 8 / low_bits(storage);
    return {quad / quads, low_bits(storage) * (quad % quads)};
}
constexpr Place high_place(int quad) { return {quad / 4, kHighBits * (quad % 4)}; }

struct GroupView {  // the parts of one group of a panel
    const uint16_t* scales;
    const uint16_t* minima;
    const uint8_t* low;
    const uint8_t* high;
};

inline GroupView view_group(const Matrix& matrix, const uint8_t* group) {
    const size_t scale_count = static_cast<size_t>(kGroup / matrix.group_size) * kLanes;
    GroupView view;
    view.scales = reinterpret_cast<const uint16_t*>(group);
    view.minima = matrix.has_minima ? view.scales + scale_count : nullptr;
    view.low = group + (matrix.has_minima ? 2 : 1) * scale_count * sizeof(uint16_t);
    view.high = view.low + low_words(matrix.storage) * kWordBytes;
    return view;
}

// One column of a matrix of floats, for the 16 rows of a panel.
LAYERSCALE_INLINE Vf load_weights(const Matrix& matrix, const uint8_t* panel, int column) {
    if (matrix.storage == Storage::kFloat) return load(reinterpret_cast<const float*>(panel) + column * kLanes);
    const uint16_t* half = reinterpret_cast<const uint16_t*>(panel) + column * kLanes;
    return matrix.storage == Storage::kHalf ? load_half(half) : load_bfloat(half);
}

}  // namespace layerscale
