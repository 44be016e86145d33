// The order in which a 32-bit lane holds four columns as bytes, alike for weights and activations.
#pragma once

#include <cstdint>
#include <cstring>

namespace layerscale {

// Of each eight columns, quad 0 holds 0 4 1 5 and quad 1 holds 2 6 3 7. So the even bytes of a word and its odd ones, as
// 16-bit numbers, are two neighbouring columns each.
constexpr int quad_of(int column) { return column / 8 * 2 + column % 4 / 2; }
constexpr int byte_in_quad(int column) { return column % 8 / 4 + 2 * (column % 2); }

struct Quads {
    uint32_t even, odd;
};

// Of eight columns, a byte each.
inline Quads to_quads(const void* columns) {
    uint16_t pairs[4];
    std::memcpy(pairs, columns, sizeof(pairs));
    const auto spread = [](uint32_t pair) { return (pair & 0xff) | (pair & 0xff00) << 8; };
    return {spread(pairs[0]) | spread(pairs[2]) << 8, spread(pairs[1]) | spread(pairs[3]) << 8};
}

}  // namespace layerscale
