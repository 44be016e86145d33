#include "activations.h"

#include "simd.h"

namespace layerscale {

void Activations::resize(int num_tokens, int cols) {
    num_tokens_ = num_tokens;
    num_groups_ = cols / kGroup;
    const size_t groups = static_cast<size_t>(num_tiles(num_tokens)) * num_groups_;
    grow(codes_, groups * kTokenTile * kGroup);
    grow(scales_, groups * kTokenTile);
    grow(sums_, groups * 3 * kTokenTile);
}

void Activations::quantize(int token, const float* row) {
    const int tile = token / kTokenTile, lane = token % kTokenTile;
    for (int group = 0; group < num_groups_; ++group) {
        const float* x = row + group * kGroup;
        const Vf low = load(x), high = load(x + kLanes);
        const float largest = reduce_max(max(abs(low), abs(high)));
        // 0 * x is NaN for the values that max() may overlook; it makes a broken activation show in the logits.
        const float broken = reduce_add(add(mul(low, zero()), mul(high, zero())));
        const float scale = largest / 32767.0f + broken;
        const float inverse = largest > 0.0f ? 32767.0f / largest : 0.0f;

        int16_t* codes = const_cast<int16_t*>(this->codes(tile, group)) + lane * kGroup;
        store_int16(codes, to_int(mul(low, set1(inverse))));
        store_int16(codes + kLanes, to_int(mul(high, set1(inverse))));
        int32_t pairs[kLanes];
        store_int(pairs, dot_pairs(set1_int(0), load_int(reinterpret_cast<const uint8_t*>(codes)), set1_int(0x00010001)));
        int32_t first = 0, second = 0;
        for (int i = 0; i < kLanes / 2; ++i) first += pairs[i], second += pairs[kLanes / 2 + i];

        const_cast<float*>(scales(tile, group))[lane] = scale;
        float* sums = const_cast<float*>(this->sums(tile, group));
        sums[lane] = scale * static_cast<float>(first);
        sums[kTokenTile + lane] = scale * static_cast<float>(second);
        sums[2 * kTokenTile + lane] = scale * static_cast<float>(first + second);
    }
}

}  // namespace layerscale
