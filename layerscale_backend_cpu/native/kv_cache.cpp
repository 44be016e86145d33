#include "kv_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace layerscale {

namespace {
constexpr size_t kPopulateBytes = size_t{2} << 20;  // a huge page
}  // namespace

KvCache::KvCache(Arena& arena, KvType type, int num_layers, int num_pages, int num_kv_heads, int head_dim)
    : format_(type, head_dim), hadamard_(head_dim), num_layers_(num_layers), num_pages_(num_pages),
      num_kv_heads_(num_kv_heads), layer_bytes_(layer_page_bytes() * num_pages),
      data_(arena.allocate(layer_bytes_ * num_layers)) {
    if (!populate(0)) return;
    populating_ = std::thread([this] {
        for (size_t begin = kPopulateBytes; begin < layer_bytes_ && !stopping_; begin += kPopulateBytes)
            if (!populate(begin)) return;
    });
}

KvCache::~KvCache() {
    stopping_ = true;
    if (populating_.joinable()) populating_.join();
}

// Has the system give kPopulateBytes of every layer, from `begin` on, without changing what they hold. Returns false
// where it cannot be asked to: memory then comes as it is first written.
bool KvCache::populate([[maybe_unused]] size_t begin) {
#if defined(MADV_POPULATE_WRITE)
    const size_t page_size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    for (int layer = 0; layer < num_layers_; ++layer) {
        const uintptr_t start = reinterpret_cast<uintptr_t>(data_) + layer * layer_bytes_ + begin;
        const uintptr_t aligned = start / page_size * page_size;
        const size_t num_bytes = std::min(kPopulateBytes, layer_bytes_ - begin) + (start - aligned);
        if (madvise(reinterpret_cast<void*>(aligned), num_bytes, MADV_POPULATE_WRITE) != 0) return false;
    }
    return true;
#else
    return false;
#endif
}

void KvCache::store(int layer, int64_t slot, const float* key, const float* value) {
    const int page = static_cast<int>(slot / kPageSize), place = static_cast<int>(slot % kPageSize);
    for (int head = 0; head < num_kv_heads_; ++head) {
        uint8_t* keys = data_ + offset(layer, page, head);
        format_.store_key(keys, place, key + head * format_.head_dim());
        format_.store_value(keys + format_.key_bytes(), place, value + head * format_.head_dim());
    }
}

void KvCache::copy_page(int source, int target) {
    for (int layer = 0; layer < num_layers_; ++layer)
        std::memcpy(data_ + offset(layer, target, 0), data_ + offset(layer, source, 0), layer_page_bytes());
}

void KvCache::rotate_page(int layer, int page, const Rotation& rotation) {
    for (int head = 0; head < num_kv_heads_; ++head) {
        uint8_t* keys = data_ + offset(layer, page, head);
        if (format_.type() == KvType::kFp16) rotate_halves(reinterpret_cast<uint16_t*>(keys), rotation);
        else rotate_codes(keys, rotation);
    }
}

void KvCache::rotate_halves(uint16_t* keys, const Rotation& rotation) const {
    for (int i = 0; i < rotation.num_pairs(); ++i) {
        uint16_t* first = keys + static_cast<size_t>(rotation.first(i)) * kPageSize;
        uint16_t* second = keys + static_cast<size_t>(rotation.second(i)) * kPageSize;
        const Vf cosine = set1(rotation.cosines[i]), sine = set1(rotation.sines[i]);
        const Vf x = load_half(first), y = load_half(second);
        store_half(first, sub(mul(x, cosine), mul(y, sine)));
        store_half(second, add(mul(x, sine), mul(y, cosine)));
    }
}

void KvCache::rotate_codes(uint8_t* keys, const Rotation& rotation) const {
    std::vector<float> key(format_.head_dim());
    for (int slot = 0; slot < kPageSize; ++slot) {
        format_.load_key(keys, slot, key.data());
        hadamard_.undo(key.data(), 1);
        for (int i = 0; i < rotation.num_pairs(); ++i) {
            float &x = key[rotation.first(i)], &y = key[rotation.second(i)];
            const float turned = x * rotation.cosines[i] - y * rotation.sines[i];
            y = x * rotation.sines[i] + y * rotation.cosines[i];
            x = turned;
        }
        hadamard_.apply(key.data(), 1);
        format_.store_key(keys, slot, key.data());
    }
}

void KvCache::read_page(int page, uint8_t* out) const {
    for (int layer = 0; layer < num_layers_; ++layer)
        std::memcpy(out + layer * layer_page_bytes(), data_ + offset(layer, page, 0), layer_page_bytes());
}

void KvCache::write_page(int page, const uint8_t* content) {
    for (int layer = 0; layer < num_layers_; ++layer)
        std::memcpy(data_ + offset(layer, page, 0), content + layer * layer_page_bytes(), layer_page_bytes());
}

}  // namespace layerscale
