#include "arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace layerscale {

namespace {
constexpr size_t kSlabBytes = size_t{64} << 20;
constexpr size_t kAlignment = 64;
}  // namespace

Arena::~Arena() {
    for (const Slab& slab : slabs_) munmap(slab.data, slab.num_bytes + kAlignment);
}

uint8_t* Arena::allocate(size_t num_bytes) {
    num_bytes = (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (slabs_.empty() || used_in_last_ + num_bytes > slabs_.back().num_bytes) {
        const size_t slab_bytes = std::max(num_bytes, kSlabBytes);
        void* data = mmap(nullptr, slab_bytes + kAlignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
        madvise(data, slab_bytes, MADV_HUGEPAGE);  // advice only: a system without huge pages is merely slower
#endif
        slabs_.push_back({static_cast<uint8_t*>(data), slab_bytes});
        used_in_last_ = 0;
    }
    uint8_t* result = slabs_.back().data + used_in_last_;
    used_in_last_ += num_bytes;
    allocated_bytes_ += num_bytes;
    return result;
}

}  // namespace layerscale
