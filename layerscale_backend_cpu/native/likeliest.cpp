#include "likeliest.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "elementwise.h"

namespace layerscale {

namespace {

// Logits that a thread takes at once: 16 KiB. Whole vectors, so that a row is capped as if it were in one piece.
constexpr int kPart = 4096;

// The largest of some values; NaN where one of them is not finite.
float find_peak(const float* values, int size) {
    constexpr int kChains = 4;  // they hide an instruction's latency
    Vf largest[kChains], flaws[kChains];
    unroll<kChains>([&](auto i) {
        largest[i] = set1(-std::numeric_limits<float>::infinity());
        flaws[i] = zero();
    });
    int begin = 0;
    for (; begin + kChains * kLanes <= size; begin += kChains * kLanes)
        unroll<kChains>([&](auto i) {
            const Vf x = load(values + begin + i * kLanes);
            largest[i] = max(largest[i], x);
            flaws[i] = fma(x, zero(), flaws[i]);  // 0 times what is not finite is NaN
        });
    float peak = reduce_max(max(max(largest[0], largest[1]), max(largest[2], largest[3])));
    float flaw = reduce_add(add(add(flaws[0], flaws[1]), add(flaws[2], flaws[3])));
    for (; begin < size; ++begin) {
        peak = std::max(peak, values[begin]);
        flaw += values[begin] * 0.0f;
    }
    return peak + flaw;
}

// The first place of a row's largest value, its parts' peaks given.
int32_t find_first(const float* row, int size, const float* peaks, int num_parts) {
    if (std::any_of(peaks, peaks + num_parts, [](float peak) { return std::isnan(peak); })) return -1;
    const float* highest = std::max_element(peaks, peaks + num_parts);  // of equals the first
    return static_cast<int32_t>(std::find(row + (highest - peaks) * kPart, row + size, *highest) - row);
}

}  // namespace

const std::vector<int32_t>& LikeliestTokens::find(float* logits, int num_rows, int num_cols, float softcap) {
    const int num_parts = (num_cols + kPart - 1) / kPart;
    peaks_.resize(static_cast<size_t>(num_rows) * num_parts);
    tokens_.resize(num_rows);
    const auto row = [&](int index) { return logits + static_cast<size_t>(index) * num_cols; };
    pool_.parallel_for(num_rows * num_parts, [&](int index, int) {
        const int begin = index % num_parts * kPart, size = std::min(kPart, num_cols - begin);
        float* values = row(index / num_parts) + begin;
        if (softcap > 0.0f) soft_cap(values, size, softcap);
        peaks_[index] = find_peak(values, size);
    });
    for (int i = 0; i < num_rows; ++i)
        tokens_[i] = find_first(row(i), num_cols, peaks_.data() + static_cast<size_t>(i) * num_parts, num_parts);
    return tokens_;
}

}  // namespace layerscale
