// Weight matrices in the panel layout.
#pragma once

#include <array>
#include <cstdint>

#include "activations.h"
#include "simd.h"

namespace layerscale {

enum class Storage { kCodes4, kCodes6, kCodes8, kHalf, kBfloat, kFloat };

// A weight matrix [rows, cols], rows in panels of 16 so that a vector's lanes are 16 rows and no dot product ever needs
// a horizontal sum. A panel is one contiguous stream:
//
//   codes:  for each group of 32 columns, [scales][minima][low bits][high bits]
//           scales, minima: float16 [32 / group_size][16]; minima only if has_minima
//           low, high bits: each row's lane of 32 bits holds quads of columns (quads.h), so that `(word >> shift) & mask`
//           yields four columns as bytes, or two neighbouring ones as 16-bit numbers, which is what dot products take:
//             4 bits:  two quads, 4 bits of each byte
//             8 bits:  one quad
//             6 bits:  4-bit words, then words of the two upper bits of four quads
//   floats: [cols][16]
//
// Rows beyond the last are zero.
struct Matrix {
    Storage storage;
    int rows;
    int cols;
    int group_size = kGroup;  // 16 or 32
    bool has_minima = false;
    float zero_point = 0.0f;
    bool has_codebook = false;
    std::array<uint8_t, 16> codebook{};
    uint8_t* data = nullptr;

    bool is_quantized() const { return storage <= Storage::kCodes8; }
    int num_panels() const { return (rows + kLanes - 1) / kLanes; }
    size_t group_bytes() const;
    size_t panel_bytes() const;
    size_t total_bytes() const { return panel_bytes() * num_panels(); }
    const uint8_t* panel(int index) const { return data + panel_bytes() * index; }
    uint8_t* panel(int index) { return data + panel_bytes() * index; }
};

// Packs 16 rows (fewer at the end) of codes into panel `index`.
// codes: [rows, cols]; scales, minima: float32 [rows, cols / group_size]; row strides are dense.
void pack_codes(Matrix& matrix, int index, int num_rows, const uint8_t* codes, const float* scales, const float* minima);

// The same for float weights: elements of the matrix's storage type, [rows, cols].
void pack_floats(Matrix& matrix, int index, int num_rows, const void* values);

// One row as floats [cols].
void unpack_row(const Matrix& matrix, int row, float* out);

}  // namespace layerscale
