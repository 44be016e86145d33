// What 8-bit codes leave of outliers (activations.h), multiplied after everything else.
#pragma once

#include "activations.h"
#include "matrix.h"

namespace layerscale {

// Adds the products of panels [first, last) with the residuals of tokens [begin, end), begin a multiple of 8, to out [token,
// rows]. Group by group, so that a group's weights are unpacked for many tokens at once. What is added for minima holds the
// residuals already.
void add_residuals(const Matrix& matrix, int first, int last, const Activations& x, int begin, int end, float* out);

}  // namespace layerscale
