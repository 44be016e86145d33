#include "activations.h"

#include <limits>

#include "simd.h"

namespace layerscale {

namespace {

void store_codes(int16_t* out, Vi codes) { store_int16(out, codes); }
void store_codes(int8_t* out, Vi codes) { store_quads(out, codes); }

}  // namespace

void Activations::resize(int num_tokens, int cols) {
    num_groups_ = cols / kGroup;
    const size_t groups = static_cast<size_t>(num_tiles(num_tokens)) * num_groups_;
    grow(codes_, groups * kTokenTile * kGroup * (bits_ / 8));
    grow(scales_, groups * kTokenTile);
    grow(sums_, groups * 3 * kTokenTile);
}

void Activations::quantize(int token, const float* row) {
    if (bits_ == 8) quantize_row<int8_t>(token, row);
    else quantize_row<int16_t>(token, row);
}

template <typename Code>
void Activations::quantize_row(int token, const float* row) {
    constexpr float kLimit = std::numeric_limits<Code>::max();
    const int tile = token / kTokenTile, lane = token % kTokenTile;
    for (int group = 0; group < num_groups_; ++group) {
        const float* x = row + group * kGroup;
        const Vf low = load(x), high = load(x + kLanes);
        const float largest = reduce_max(max(abs(low), abs(high)));
        // 0 * x is NaN for the values that max() may overlook; it makes a broken activation show in the logits.
        const float broken = reduce_add(add(mul(low, zero()), mul(high, zero())));
        const float scale = largest / kLimit + broken;
        const float inverse = largest > 0.0f ? kLimit / largest : 0.0f;

        const Vi low_codes = to_int(mul(low, set1(inverse))), high_codes = to_int(mul(high, set1(inverse)));
        Code* codes = const_cast<Code*>(this->codes<Code>(tile, group)) + lane * kGroup;
        store_codes(codes, low_codes);
        store_codes(codes + kLanes, high_codes);
        // Exact: sixteen integers of 16 bits are less than 2^24.
        const float first = reduce_add(to_float(low_codes)), second = reduce_add(to_float(high_codes));

        const_cast<float*>(scales(tile, group))[lane] = scale;
        float* sums = const_cast<float*>(this->sums(tile, group));
        sums[lane] = scale * first;
        sums[kTokenTile + lane] = scale * second;
        sums[2 * kTokenTile + lane] = scale * (first + second);
    }
}

}  // namespace layerscale
