#include "hadamard.h"

#include <cmath>
#include <cstdint>

namespace layerscale {

Hadamard::Hadamard(int head_dim) : block_(head_dim & -head_dim) {
    uint32_t state = 1;  // any fixed sequence serves; this one is congruential
    for (int dim = 0; dim < head_dim; ++dim) {
        state = state * 1664525u + 1013904223u;
        signs_.push_back(state >> 31 ? -1.0f : 1.0f);
    }
}

void Hadamard::apply(float* heads, int num_heads) const {
    for (const int head_dim = static_cast<int>(signs_.size()); num_heads > 0; --num_heads, heads += head_dim) {
        for (int dim = 0; dim < head_dim; ++dim) heads[dim] *= signs_[dim];
        transform(heads);
    }
}

void Hadamard::undo(float* heads, int num_heads) const {
    for (const int head_dim = static_cast<int>(signs_.size()); num_heads > 0; --num_heads, heads += head_dim) {
        transform(heads);
        for (int dim = 0; dim < head_dim; ++dim) heads[dim] *= signs_[dim];
    }
}

void Hadamard::transform(float* head) const {
    const int head_dim = static_cast<int>(signs_.size());
    for (int width = 1; width < block_; width *= 2)
        for (int first = 0; first < head_dim; first += 2 * width)
            for (int i = first; i < first + width; ++i) {
                const float x = head[i], y = head[i + width];
                head[i] = x + y;
                head[i + width] = x - y;
            }
    const float scale = 1.0f / std::sqrt(static_cast<float>(block_));
    for (int i = 0; i < head_dim; ++i) head[i] *= scale;
}

}  // namespace layerscale
