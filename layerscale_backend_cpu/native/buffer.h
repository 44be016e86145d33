// Working memory that grows to the largest step and stays.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace layerscale {

constexpr size_t kCacheLine = 64;

// Places elements at whole cache lines, so that no vector lies across two.
template <typename T>
struct LineAllocator {
    using value_type = T;
    static constexpr std::align_val_t kLine{kCacheLine};

    LineAllocator() = default;
    template <typename U>
    LineAllocator(const LineAllocator<U>&) {}

    T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), kLine)); }
    void deallocate(T* data, size_t) { ::operator delete(data, kLine); }
    bool operator==(const LineAllocator&) const { return true; }
    bool operator!=(const LineAllocator&) const { return false; }
};

template <typename T>
using Buffer = std::vector<T, LineAllocator<T>>;
using Floats = Buffer<float>;

template <typename T>
void grow(Buffer<T>& buffer, size_t size) {
    if (buffer.size() < size) buffer.resize(size);
}

}  // namespace layerscale
