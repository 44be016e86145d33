// Arithmetic on rows of floats, in place unless it says otherwise. What becomes of an element depends on its place in the
// row alone.
#pragma once

#include <cmath>

#include "simd.h"

namespace layerscale {

// Root-mean-square normalisation (arXiv:1910.07467): x / sqrt(mean(x^2) + eps) * weight. `out` may be x.
inline void rms_norm(const float* x, const float* weight, int size, float eps, float* out) {
    Vf squares = zero();
    int i = 0;
    for (; i + kLanes <= size; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
    float sum = reduce_add(squares);
    for (; i < size; ++i) sum += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(size) + eps);
    for (i = 0; i + kLanes <= size; i += kLanes)
        store(out + i, mul(mul(load(x + i), set1(scale)), load(weight + i)));
    for (; i < size; ++i) out[i] = x[i] * scale * weight[i];
}

// gate = silu(gate) * up, with silu(x) = x / (1 + e^-x).
inline void gated_silu(float* gate, const float* up, int size) {
    int i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const Vf x = load(gate + i);
        // Below -88 the true value is smaller than 1e-36: capping the exponent keeps e^-x finite.
        const Vf exponent = exp(sub(zero(), max(set1(-88.0f), x)));
        store(gate + i, mul(div(x, add(set1(1.0f), exponent)), load(up + i)));
    }
    for (; i < size; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

// gate = gelu(gate) * up, with gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) (arXiv:1606.08415).
inline void gated_gelu(float* gate, const float* up, int size) {
    constexpr float kRoot = 0.7978845608f, kCubic = 0.044715f;
    int i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        const Vf x = load(gate + i);
        const Vf inner = mul(mul(x, set1(kRoot)), fma(mul(x, x), set1(kCubic), set1(1.0f)));
        store(gate + i, mul(mul(mul(x, set1(0.5f)), add(set1(1.0f), tanh(inner))), load(up + i)));
    }
    for (; i < size; ++i) {
        const float x = gate[i], inner = x * kRoot * (x * x * kCubic + 1.0f);
        gate[i] = x * 0.5f * (1.0f + std::tanh(inner)) * up[i];
    }
}

// 0, or NaN where any of x is not finite: what a minimum or maximum may overlook must show in the logits.
inline float nan_if_broken(const float* x, int size) {
    Vf products = zero();
    int i = 0;
    for (; i + kLanes <= size; i += kLanes) products = fma(load(x + i), zero(), products);
    float sum = reduce_add(products);
    for (; i < size; ++i) sum += 0.0f * x[i];
    return sum;
}

template <bool kIsInterleaved>
inline void rotate_pairs(float* __restrict x, const float* __restrict cosines, const float* __restrict sines, int num_pairs) {
    for (int i = 0; i < num_pairs; ++i) {
        float& first = x[kIsInterleaved ? 2 * i : i];
        float& second = x[kIsInterleaved ? 2 * i + 1 : i + num_pairs];
        const float turned = first * cosines[i] - second * sines[i];
        second = first * sines[i] + second * cosines[i];
        first = turned;
    }
}

// Turns each pair by its angle (arXiv:2104.09864): pairs are (2i, 2i + 1) where interleaved, otherwise (i, i + num_pairs).
inline void rotate_pairs(float* x, const float* cosines, const float* sines, int num_pairs, bool is_interleaved) {
    if (is_interleaved) rotate_pairs<true>(x, cosines, sines, num_pairs);
    else rotate_pairs<false>(x, cosines, sines, num_pairs);
}

// x = cap * tanh(x / cap) (arXiv:2408.00118).
inline Vf soft_cap(Vf x, float cap) { return mul(tanh(mul(x, set1(1.0f / cap))), set1(cap)); }

inline void soft_cap(float* x, int size, float cap) {
    int i = 0;
    for (; i + kLanes <= size; i += kLanes) store(x + i, soft_cap(load(x + i), cap));
    for (; i < size; ++i) x[i] = cap * std::tanh(x[i] * (1.0f / cap));
}

inline void scale(float* x, int size, float factor) {
    for (int i = 0; i < size; ++i) x[i] *= factor;
}

// x += factor * y, each product rounded before it is added.
inline void add(float* x, const float* y, int size, float factor = 1.0f) {
    for (int i = 0; i < size; ++i) x[i] += y[i] * factor;
}

}  // namespace layerscale
