// What becomes of a step's logits: they are capped, and each row's likeliest token is found.
#pragma once

#include <cstdint>
#include <vector>

#include "thread_pool.h"

namespace layerscale {

// Goes over the logits on the pool, directly behind the product that gave them: most are still in the threads' caches.
class LikeliestTokens {
public:
    explicit LikeliestTokens(ThreadPool& pool) : pool_(pool) {}

    // logits: [num_rows, num_cols], capped in place; softcap 0 = none.
    // Returns each row's likeliest token, of equals the first, or -1 where a row holds NaN or infinity; valid until the
    // next call.
    const std::vector<int32_t>& find(float* logits, int num_rows, int num_cols, float softcap);

private:
    ThreadPool& pool_;
    std::vector<float> peaks_;  // of each part of each row
    std::vector<int32_t> tokens_;
};

}  // namespace layerscale
