// The product of a weight matrix with activations.
#pragma once

#include "activations.h"
#include "matrix.h"

namespace layerscale {

// What happens to a product: it replaces the output, or it is added (a residual connection).
enum class Store { kReplace, kAdd };

// out[token, 16 * panel + lane] = sum over columns, for panels [first, last) and tokens [begin, end) of the input, begin a
// multiple of 8; out has `rows` floats a token. Quantised matrices read `codes`, the others `floats` [num_tokens, cols].
// A token's result does not depend on the others: each of its sums runs over the groups in order, in one accumulator, and what
// outliers add comes after it, in order as well.
void multiply_panels(const Matrix& matrix, int first, int last, const Activations& codes, const float* floats, int begin, int end,
                     float* out, Store mode);

}  // namespace layerscale
