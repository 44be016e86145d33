#include "kv_cache.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "elementwise.h"

namespace layerscale {

namespace {

constexpr size_t kPopulateBytes = size_t{64} << 20;

// Has the system give memory without changing what it holds. Returns false where it cannot be asked to: memory then comes as it
// is first written.
bool populate_bytes([[maybe_unused]] const uint8_t* begin, [[maybe_unused]] size_t num_bytes) {
#if defined(MADV_POPULATE_WRITE)
    const size_t page_size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t start = reinterpret_cast<uintptr_t>(begin), aligned = start / page_size * page_size;
    return madvise(reinterpret_cast<void*>(aligned), num_bytes + (start - aligned), MADV_POPULATE_WRITE) == 0;
#else
    return false;
#endif
}

}  // namespace

KvCache::KvCache(Arena& arena, KvType type, int num_layers, int num_pages, int num_kv_heads, int head_dim)
    : format_(type, head_dim), hadamard_(head_dim), num_layers_(num_layers), num_pages_(num_pages),
      num_kv_heads_(num_kv_heads), pages_at_once_(std::max(1, static_cast<int>(kPopulateBytes / page_bytes()))),
      data_(arena.allocate(page_bytes() * num_pages)) {
    if (!populate(0)) return;
    populating_ = std::thread([this] {
        for (int page = pages_at_once_; page < num_pages_ && !stopping_; page += pages_at_once_)
            if (!populate(page)) return;
    });
}

KvCache::~KvCache() {
    stopping_ = true;
    if (populating_.joinable()) populating_.join();
}

// Calls body(layer, kv_head) for each.
template <typename Body>
void KvCache::for_each_head(const Body& body) const {
    for (int layer = 0; layer < num_layers_; ++layer)
        for (int head = 0; head < num_kv_heads_; ++head) body(layer, head);
}

// Asks for pages_at_once_ from a page on, of all heads.
bool KvCache::populate(int first_page) {
    const size_t count = std::min(pages_at_once_, num_pages_ - first_page);
    bool is_given = true;
    for_each_head([&](int layer, int head) {
        is_given = is_given && populate_bytes(keys(layer, first_page, head), count * format_.key_bytes()) &&
                   populate_bytes(values(layer, first_page, head), count * format_.value_bytes());
    });
    return is_given;
}

void KvCache::store(int layer, int64_t slot, const float* key, const float* value) {
    const int page = static_cast<int>(slot / kPageSize), place = static_cast<int>(slot % kPageSize);
    for (int head = 0; head < num_kv_heads_; ++head) {
        format_.store_key(mutable_keys(layer, page, head), place, key + head * format_.head_dim());
        format_.store_value(mutable_values(layer, page, head), place, value + head * format_.head_dim());
    }
}

void KvCache::copy_page(int source, int target) {
    for_each_head([&](int layer, int head) {
        std::memcpy(mutable_keys(layer, target, head), keys(layer, source, head), format_.key_bytes());
        std::memcpy(mutable_values(layer, target, head), values(layer, source, head), format_.value_bytes());
    });
}

void KvCache::rotate_page(int layer, int page, const Rotation& rotation) {
    for (int head = 0; head < num_kv_heads_; ++head) {
        uint8_t* turned = mutable_keys(layer, page, head);
        if (format_.type() == KvType::kFp16) rotate_halves(reinterpret_cast<uint16_t*>(turned), rotation);
        else rotate_codes(turned, rotation);
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
        rotate_pairs(key.data(), rotation.cosines.data(), rotation.sines.data(), rotation.num_pairs(), rotation.interleaved);
        hadamard_.apply(key.data(), 1);
        format_.store_key(keys, slot, key.data());
    }
}

void KvCache::read_page(int page, uint8_t* out) const {
    for_each_head([&](int layer, int head) {
        std::memcpy(out, keys(layer, page, head), format_.key_bytes());
        std::memcpy(out + format_.key_bytes(), values(layer, page, head), format_.value_bytes());
        out += page_head_bytes();
    });
}

void KvCache::write_page(int page, const uint8_t* content) {
    for_each_head([&](int layer, int head) {
        std::memcpy(mutable_keys(layer, page, head), content, format_.key_bytes());
        std::memcpy(mutable_values(layer, page, head), content + format_.key_bytes(), format_.value_bytes());
        content += page_head_bytes();
    });
}

}  // namespace layerscale
