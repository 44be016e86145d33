// A batch as it comes from Python: its arrays, and the checks behind which sizes and indices are trusted.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "batch.h"
#include "kv_cache.h"

namespace layerscale {

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

inline void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

// The arrays of a layerscale_core.specs.StepBatch, kept alive while a batch points into them.
struct StepArrays {
    explicit StepArrays(const py::object& batch)
        : token_ids(batch.attr("token_ids").cast<Array<int32_t>>()),
          positions(batch.attr("positions").cast<Array<int32_t>>()),
          slot_mapping(batch.attr("slot_mapping").cast<Array<int64_t>>()),
          cu_seqlens(batch.attr("cu_seqlens").cast<Array<int32_t>>()),
          page_tables(batch.attr("page_tables").cast<Array<int32_t>>()),
          page_starts(batch.attr("page_starts").cast<Array<int32_t>>()),
          page_stops(batch.attr("page_stops").cast<Array<int32_t>>()),
          logits_indices(batch.attr("logits_indices").cast<Array<int32_t>>()) {}

    Batch batch() const {
        require(cu_seqlens.ndim() == 1 && cu_seqlens.size() >= 2 && page_tables.ndim() == 2, "wrong number of dimensions");
        Batch batch;
        batch.num_tokens = static_cast<int>(token_ids.size());
        batch.num_seqs = static_cast<int>(cu_seqlens.size()) - 1;
        batch.max_pages = static_cast<int>(page_tables.shape(1));
        batch.num_logits = static_cast<int>(logits_indices.size());
        require(positions.size() == token_ids.size() && slot_mapping.size() == token_ids.size(), "token arrays differ");
        require(page_tables.shape(0) == batch.num_seqs && page_starts.size() == page_tables.size() &&
                    page_stops.size() == page_tables.size(),
                "page arrays differ");
        batch.token_ids = token_ids.data();
        batch.positions = positions.data();
        batch.slot_mapping = slot_mapping.data();
        batch.cu_seqlens = cu_seqlens.data();
        batch.page_tables = page_tables.data();
        batch.page_starts = page_starts.data();
        batch.page_stops = page_stops.data();
        batch.logits_indices = logits_indices.data();
        return batch;
    }

    Array<int32_t> token_ids, positions;
    Array<int64_t> slot_mapping;
    Array<int32_t> cu_seqlens, page_tables, page_starts, page_stops, logits_indices;
};

// Where tokens stand and what they attend to: all that layers look at.
inline void check_places(const Batch& batch, const KvCache& kv) {
    require(batch.cu_seqlens[0] == 0 && batch.cu_seqlens[batch.num_seqs] == batch.num_tokens,
            "cu_seqlens must run from 0 to num_tokens");
    for (int i = 0; i < batch.num_tokens; ++i) {
        require(batch.slot_mapping[i] >= 0 && batch.slot_mapping[i] < kv.num_slots(), "slot out of range");
        require(batch.positions[i] >= 0, "position out of range");
    }
    for (int seq = 0; seq < batch.num_seqs; ++seq) {
        int context_len = 0;
        for (int p = 0; p < batch.max_pages; ++p) {
            const size_t i = static_cast<size_t>(seq) * batch.max_pages + p;
            if (batch.page_tables[i] < 0) break;
            require(batch.page_tables[i] < kv.num_pages(), "page id out of range");
            require(0 <= batch.page_starts[i] && batch.page_starts[i] <= batch.page_stops[i] &&
                        batch.page_stops[i] <= kPageSize,
                    "valid range outside its page");
            context_len += batch.page_stops[i] - batch.page_starts[i];
        }
        const int new_tokens = batch.cu_seqlens[seq + 1] - batch.cu_seqlens[seq];
        require(0 < new_tokens && new_tokens <= context_len, "a sequence has more new tokens than slots, or none");
    }
}

// What goes in and comes out at the ends of the model. Without embedding and head no token id is in range.
inline void check_ends(const Batch& batch, int vocab_size) {
    for (int i = 0; i < batch.num_tokens; ++i)
        require(batch.token_ids[i] >= 0 && batch.token_ids[i] < vocab_size, "token id out of range");
    for (int i = 0; i < batch.num_logits; ++i)
        require(batch.logits_indices[i] >= 0 && batch.logits_indices[i] < batch.num_tokens, "logits index out of range");
}

}  // namespace layerscale
