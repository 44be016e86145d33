// Activations quantised for the integer kernels: codes of 16 or 8 bits in groups of 32 along a row.
//
// 16 bits make the rounding of activations vanish beside that of the weights. They cost no memory traffic worth naming, and
// int16 x int16 -> int32 dot products take weight codes up to 8 bits without any risk of overflow: 255 * 32767 * 32 < 2^31.
// 8 bits are what most CPU engines use, and the larger part of their deviation from the model; dot products take half the time.
// Most of that deviation comes from few groups, whose values are much larger than those of the row's others: these outliers
// have a second code of 8 bits, for what the first leaves of a value.
#pragma once

#include <cstddef>
#include <cstdint>

#include "buffer.h"

namespace layerscale {

constexpr int kGroup = 32;     // columns that share an activation scale
constexpr int kTokenTile = 8;  // tokens whose groups lie side by side, so that one pointer serves a tile

// A group is an outlier if its largest magnitude is so many times the root mean square of those of all groups in the row. What an MLP
// has gated bears coarser rounding than what norms and attention give.
constexpr float kOutlier = 1.3f;
constexpr float kGatedOutlier = 2.5f;

// What the 8-bit codes of a token's outlier leave of its values.
struct Residual {
    float scale;
    int8_t codes[kGroup];  // as quads
};

inline int num_tiles(int num_tokens) { return (num_tokens + kTokenTile - 1) / kTokenTile; }

class Activations {
public:
    // bits: of a code, 16 or 8.
    explicit Activations(int bits) : bits_(bits) {}

    // Makes room for num_tokens rows of cols (a multiple of 32) elements.
    void resize(int num_tokens, int cols);

    // Quantises one token's row of floats. Thread-safe for tokens of different tiles. outlier: what makes a group one.
    void quantize(int token, const float* row, float outlier = kOutlier);

    int bits() const { return bits_; }
    int num_groups() const { return num_groups_; }

    // [kTokenTile][kGroup] codes of one tile and group; those of 8 bits as quads, those of 16 in order.
    template <typename Code>
    const Code* codes(int tile, int group) const {
        return reinterpret_cast<const Code*>(codes_.data()) + (static_cast<size_t>(tile) * num_groups_ + group) * kTokenTile * kGroup;
    }
    // [kTokenTile] scales of one tile and group.
    const float* scales(int tile, int group) const {
        return scales_.data() + (static_cast<size_t>(tile) * num_groups_ + group) * kTokenTile;
    }
    // Of 8-bit codes: the tokens of a tile in which a group is an outlier, a bit each.
    unsigned outliers(int tile, int group) const { return outliers_[static_cast<size_t>(tile) * num_groups_ + group]; }
    // [num_groups] residuals of a token, written only where the group is an outlier.
    const Residual* residuals(int token) const { return residuals_.data() + static_cast<size_t>(token) * num_groups_; }
    // [3][kTokenTile] sums of the group's values as rounded: its first half, its second half, all of it.
    const float* sums(int tile, int group) const {
        return sums_.data() + (static_cast<size_t>(tile) * num_groups_ + group) * 3 * kTokenTile;
    }

private:
    template <typename Code>
    void quantize_row(int token, const float* row, float outlier);
    float store_maxima(int token, const float* row);
    void mark_outlier(int group, int token, bool is_outlier);

    int bits_;
    int num_tiles_ = 0;
    int num_groups_ = 0;
    Buffer<uint8_t> codes_;
    Buffer<Residual> residuals_;
    Buffer<uint8_t> outliers_;
    Floats scales_, sums_;
};

}  // namespace layerscale
