// One step's ragged batch, as layerscale_core.specs.StepBatch describes it: views of the caller's arrays.
#pragma once

#include <cstdint>

namespace layerscale {

struct Batch {
    int num_tokens;
    int num_seqs;
    int max_pages;
    int num_logits;
    const int32_t* token_ids;       // [num_tokens]
    const int32_t* positions;       // [num_tokens]
    const int64_t* slot_mapping;    // [num_tokens]
    const int32_t* cu_seqlens;      // [num_seqs + 1]
    const int32_t* page_tables;     // [num_seqs, max_pages], -1 where padded
    const int32_t* page_starts;     // [num_seqs, max_pages]
    const int32_t* page_stops;      // [num_seqs, max_pages]
    const int32_t* logits_indices;  // [num_logits]
};

}  // namespace layerscale
