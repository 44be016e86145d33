// What 8-bit codes leave of outliers (activations.h), multiplied while their groups are at hand.
#pragma once

#include "steps.h"

namespace layerscale {

// A group of a panel, unpacked once for all tokens that need it.
template <typename K>
struct Unpacked {
    static constexpr int kScales = kGroup / K::kGroupSize;
    static constexpr int kSteps = kGroup / K::kStepColumns;
    Vi weights[kSteps];
    Vf scales[kScales];
};

template <typename K>
LAYERSCALE_INLINE Unpacked<K> unpack(const GroupView& view, Vi table) {
    Unpacked<K> group;
    unroll<group.kSteps>([&](auto step) { group.weights[step] = unpack_step<K, step>(view, table); });
    unroll<group.kScales>([&](auto index) { group.scales[index] = load_half(view.scales + index * kLanes); });
    return group;
}

// Adds its scaled products with one token's residuals.
template <typename K>
LAYERSCALE_INLINE Vf add_products(const Unpacked<K>& group, const Residual& residual, Vf sum) {
    constexpr int kSteps = group.kSteps / group.kScales;
    unroll<group.kScales>([&](auto index) {
        Vi dots[2] = {set1_int(0), set1_int(0)};  // two chains, to hide latency
        unroll<kSteps>([&](auto step) {
            constexpr int kStep = index * kSteps + step;
            dots[step % 2] = dot_step<K>(dots[step % 2], group.weights[kStep], set1_int(load_step<K>(residual.codes, kStep)));
        });
        sum = fma(to_float(add_int(dots[0], dots[1])), mul(group.scales[index], set1(residual.scale)), sum);
    });
    return sum;
}

// Adds a group's products with the residuals of some tokens, a bit each, to the sums [token, 16] of which `begun` tells which have
// begun. A token's residual is at x[token * stride].
template <typename K>
LAYERSCALE_INLINE void add_residuals(const GroupView& view, Vi table, unsigned tokens, const Residual* x, size_t stride,
                                     unsigned& begun, float* sums) {
    const auto group = unpack<K>(view, table);
    for (; tokens != 0; tokens &= tokens - 1) {
        const int token = __builtin_ctz(tokens);
        float* sum = sums + token * kLanes;
        store(sum, add_products(group, x[token * stride], begun >> token & 1 ? load(sum) : zero()));
        begun |= 1u << token;
    }
}

}  // namespace layerscale
