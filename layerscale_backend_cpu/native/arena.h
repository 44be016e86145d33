// Memory that is committed once and freed together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace layerscale {

// Hands out zeroed, cache-line-aligned memory from large mappings that ask for huge pages: decoding reads all weights
// once a step, and 4 KiB pages would make address translation its bottleneck. Not thread-safe.
class Arena {
public:
    Arena() = default;
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // Up to 63 bytes beyond the end may be read, so that the last vector of a row need not be a special case. Throws
    // std::bad_alloc when the system refuses.
    uint8_t* allocate(size_t num_bytes);

    size_t allocated_bytes() const { return allocated_bytes_; }

private:
    struct Slab {
        uint8_t* data;
        size_t num_bytes;
    };
    std::vector<Slab> slabs_;
    size_t used_in_last_ = 0;
    size_t allocated_bytes_ = 0;
};

}  // namespace layerscale
