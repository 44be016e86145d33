#include "activations.h"

#include <cmath>
#include <limits>

#include "elementwise.h"

namespace layerscale {

namespace {

// A code leaves at most half a step of its scale; a residual's step is so many times finer, so that the half is code 127.
constexpr float kResidualSteps = 254.0f;

void store_codes(int16_t* out, Vi codes) { store_int16(out, codes); }
void store_codes(int8_t* out, Vi codes) { store_quads(out, codes); }

// Rounds half a group, from a column on; returns the sum of what its codes stand for, in steps of the scale. residual: null unless
// the group is an outlier.
template <typename Code>
float round_half(Vf x, float inverse, int column, Code* codes, Residual* residual) {
    const Vf steps = mul(x, set1(inverse));
    const Vi whole = to_int(steps);
    store_codes(codes + column, whole);
    Vf rounded = to_float(whole);
    if (residual) {
        const Vi parts = to_int(mul(sub(steps, rounded), set1(kResidualSteps)));
        store_codes(residual->codes + column, parts);
        rounded = fma(to_float(parts), set1(1.0f / kResidualSteps), rounded);
    }
    return reduce_add(rounded);  // exact for codes alone: sixteen integers of 16 bits are less than 2^24
}

}  // namespace

void Activations::resize(int num_tokens, int cols) {
    num_tiles_ = num_tiles(num_tokens);
    num_groups_ = cols / kGroup;
    const size_t groups = static_cast<size_t>(num_tiles_) * num_groups_;
    grow(codes_, groups * kTokenTile * kGroup * (bits_ / 8));
    grow(scales_, groups * kTokenTile);
    grow(sums_, groups * 3 * kTokenTile);
    if (bits_ != 8) return;
    grow(residuals_, static_cast<size_t>(num_tokens) * num_groups_);
    grow(outliers_, groups);
}

void Activations::quantize(int token, const float* row, float outlier) {
    if (bits_ == 8) quantize_row<int8_t>(token, row, outlier);
    else quantize_row<int16_t>(token, row, outlier);
}

// Puts each group's largest magnitude where its scale will be; returns their root mean square.
float Activations::store_maxima(int token, const float* row) {
    float squares = 0.0f;
    for (int group = 0; group < num_groups_; ++group) {
        const float* x = row + group * kGroup;
        const float largest = reduce_max(max(abs(load(x)), abs(load(x + kLanes))));
        const_cast<float*>(scales(token / kTokenTile, group))[token % kTokenTile] = largest;
        squares += largest * largest;
    }
    return std::sqrt(squares / static_cast<float>(num_groups_));
}

// Writes only what changes, since other threads write to the same cache line.
void Activations::mark_outlier(int group, int token, bool is_outlier) {
    uint8_t& tile = outliers_[static_cast<size_t>(token / kTokenTile) * num_groups_ + group];
    const uint8_t bit = static_cast<uint8_t>(1u << token % kTokenTile);
    if (((tile & bit) != 0) != is_outlier) tile ^= bit;
}

template <typename Code>
void Activations::quantize_row(int token, const float* row, float outlier) {
    constexpr float kLimit = std::numeric_limits<Code>::max();
    constexpr bool kHasResiduals = sizeof(Code) == 1;
    const int tile = token / kTokenTile, lane = token % kTokenTile;
    const float bound = store_maxima(token, row) * outlier, broken = nan_if_broken(row, num_groups_ * kGroup);
    for (int group = 0; group < num_groups_; ++group) {
        const Vf low = load(row + group * kGroup), high = load(row + group * kGroup + kLanes);
        float& scale = const_cast<float*>(scales(tile, group))[lane];
        const float largest = scale;
        scale = largest / kLimit + broken;
        const float inverse = largest > 0.0f ? kLimit / largest : 0.0f;
        Residual* residual = nullptr;
        if constexpr (kHasResiduals) {
            const bool is_outlier = largest > bound;
            mark_outlier(group, token, is_outlier);
            if (is_outlier) {
                residual = const_cast<Residual*>(residuals(token)) + group;
                residual->scale = scale / kResidualSteps;
            }
        }
        Code* codes = const_cast<Code*>(this->codes<Code>(tile, group)) + lane * kGroup;
        const float first = round_half(low, inverse, 0, codes, residual);
        const float second = round_half(high, inverse, kLanes, codes, residual);
        float* sums = const_cast<float*>(this->sums(tile, group));
        sums[lane] = scale * first;
        sums[kTokenTile + lane] = scale * second;
        sums[2 * kTokenTile + lane] = scale * (first + second);
    }
}

}  // namespace layerscale
