// The rotation that spreads outliers over all elements of a key or value before it is rounded to codes.
#pragma once

#include <vector>

namespace layerscale {

// Fixed signs, then a Walsh-Hadamard transform of the largest power of two that divides the head (QuaRot,
// arXiv:2404.00456). Orthogonal: queries and keys that are rotated alike have the same scores, and the weighted sum of
// rotated values is rotated back.
class Hadamard {
public:
    explicit Hadamard(int head_dim);

    // In place, heads of head_dim elements side by side.
    void apply(float* heads, int num_heads) const;
    void undo(float* heads, int num_heads) const;

private:
    void transform(float* head) const;

    int block_;
    std::vector<float> signs_;
};

}  // namespace layerscale
