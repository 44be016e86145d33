// Weight matrices in the panel layout, and the product with activations.
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
//           each row's lane of 32 bits holds codes so that `(word >> shift) & mask` yields two neighbouring columns as
//           two 16-bit numbers, which is what the dot product takes:
//             4 bits:  nibble j of the low half is column 2j, of the high half column 2j + 1, of 8 columns
//             8 bits:  byte j of each half, of 4 columns
//             6 bits:  4-bit words, then words with the two upper bits of 16 columns
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

// What happens to a product: it replaces the output, or it is added (a residual connection).
enum class Store { kReplace, kAdd };

// out[token, 16 * panel + lane] = sum over columns, for tokens [begin, end) of the input, begin a multiple of 8; out has
// `rows` floats a token. Quantised matrices read `codes`, the others `floats` [num_tokens, cols].
// A token's result does not depend on the others: each of its sums runs over the groups in order, in one accumulator.
void multiply_panel(const Matrix& matrix, int panel, const Activations& codes, const float* floats, int begin, int end,
                    float* out, Store mode);

}  // namespace layerscale
