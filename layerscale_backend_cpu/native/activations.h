// Activations quantised for the integer kernels: 16-bit codes in groups of 32 along a row.
//
// 16 bits make the rounding of activations vanish beside that of the weights (8 bits are what most CPU engines use, and
// the larger part of their deviation from the model). They cost no memory traffic worth naming, and int16 x int16 ->
// int32 dot products take weight codes up to 8 bits without any risk of overflow: 255 * 32767 * 32 < 2^31.
#pragma once

#include <cstddef>
#include <cstdint>

#include "buffer.h"

namespace layerscale {

constexpr int kGroup = 32;     // columns that share an activation scale
constexpr int kTokenTile = 8;  // tokens whose groups lie side by side, so that one pointer serves a tile

inline int num_tiles(int num_tokens) { return (num_tokens + kTokenTile - 1) / kTokenTile; }

class Activations {
public:
    // Makes room for num_tokens rows of cols (a multiple of 32) elements.
    void resize(int num_tokens, int cols);

    // Quantises one token's row of floats. Thread-safe for different tokens.
    void quantize(int token, const float* row);

    int num_tokens() const { return num_tokens_; }
    int num_groups() const { return num_groups_; }

    // [kTokenTile][kGroup] codes of one tile and group.
    const int16_t* codes(int tile, int group) const {
        return codes_.data() + (static_cast<size_t>(tile) * num_groups_ + group) * kTokenTile * kGroup;
    }
    // [kTokenTile] scales of one tile and group.
    const float* scales(int tile, int group) const {
        return scales_.data() + (static_cast<size_t>(tile) * num_groups_ + group) * kTokenTile;
    }
    // [3][kTokenTile] sums of the group's values: its first half, its second half, all of it.
    const float* sums(int tile, int group) const {
        return sums_.data() + (static_cast<size_t>(tile) * num_groups_ + group) * 3 * kTokenTile;
    }

private:
    int num_tokens_ = 0;
    int num_groups_ = 0;
    Buffer<int16_t> codes_;
    Floats scales_, sums_;
};

}  // namespace layerscale
