#include "dot_rate.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "simd.h"
#include "thread_pool.h"

namespace layerscale {

namespace {

constexpr int kChains = kParts == 1 ? 8 : kParts == 2 ? 4 : 2;  // 8 registers: enough to hide the instruction's latency
constexpr int kRounds = 1 << 20;
constexpr int kRuns = 8;

// Sums that depend on every product, so that none can be left out.
template <bool kIsBytes>
int32_t multiply(int32_t seed) {
    Vi weights = set1_int(seed), sums[kChains];
    unroll<kChains>([&](auto chain) { sums[chain] = set1_int(seed + chain); });
    for (int round = 0; round < kRounds; ++round)
        unroll<kChains>([&](auto chain) {
            const Vi next = sums[(chain + 1) % kChains];
            sums[chain] = kIsBytes ? dot_quads<false>(sums[chain], weights, next) : dot_pairs(sums[chain], weights, next);
        });
    int32_t lanes[kLanes], total = 0;
    unroll<kChains>([&](auto chain) {
        store_int(lanes, sums[chain]);
        for (const int32_t lane : lanes) total ^= lane;
    });
    return total;
}

}  // namespace

double measure_dot_rate(int num_threads, int activation_bits) {
    const bool is_bytes = activation_bits == 8;
    using Clock = std::chrono::steady_clock;
    ThreadPool pool(num_threads);
    std::vector<int32_t> results(num_threads);
    double least = 0.0;
    for (int run = 0; run < kRuns; ++run) {
        const Clock::time_point started = Clock::now();
        pool.parallel_for(num_threads, [&](int index, int) {
            results[index] = is_bytes ? multiply<true>(results[index] + run) : multiply<false>(results[index] + run);
        });
        const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
        least = run == 0 ? seconds : std::min(least, seconds);
    }
    const double operations = 2.0 * (is_bytes ? 4 : 2) * kLanes;  // so many products a lane, each multiplied and added
    return operations * kChains * kRounds * num_threads / least;
}

}  // namespace layerscale
