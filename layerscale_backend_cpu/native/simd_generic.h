// Any machine: four 128-bit vectors of the compiler's own, and the few instructions it does not find by itself.
// Included by simd.h alone.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "half.h"
#include "quads.h"

namespace layerscale::native {

typedef float F __attribute__((vector_size(16)));
typedef int32_t I __attribute__((vector_size(16)));
typedef int16_t S __attribute__((vector_size(16)));
typedef uint32_t U __attribute__((vector_size(16)));
constexpr int kWidth = 4;
inline F load(const float* p) { F a; std::memcpy(&a, p, 16); return a; }
inline void store(float* p, F a) { std::memcpy(p, &a, 16); }
inline F set1(float a) { return F{a, a, a, a}; }
inline F add(F a, F b) { return a + b; }
inline F sub(F a, F b) { return a - b; }
inline F mul(F a, F b) { return a * b; }
inline F div(F a, F b) { return a / b; }
inline I as_int(F a) { return reinterpret_cast<I>(a); }
inline F as_float(I a) { return reinterpret_cast<F>(a); }
inline F select(I mask, F a, F b) { return as_float((mask & as_int(a)) | (~mask & as_int(b))); }
inline F max(F a, F b) { return select(a > b, a, b); }
inline F abs(F a) { return as_float(as_int(a) & 0x7fffffff); }
inline F fma(F a, F b, F c) { return a * b + c; }
inline F round(F a) {  // nearest even for |a| < 2^22, which is all that is asked here
    const F magic = set1(12582912.0f);
    return (a + magic) - magic;
}
inline float reduce_add(F a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline float reduce_max(F a) {
    const F two = max(a, F{a[2], a[3], a[2], a[3]});
    return two[0] > two[1] ? two[0] : two[1];
}
inline F zero_if_less(F a, F b, F value) { return as_float(~(a < b) & as_int(value)); }
#if defined(__aarch64__)
inline F load_half(const uint16_t* p) {
    return reinterpret_cast<F>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))));
}
inline void store_half(uint16_t* p, F a) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(reinterpret_cast<float32x4_t>(a))));
}
#else
inline F load_half(const uint16_t* p) {
    return F{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]), half_to_float(p[3])};
}
inline void store_half(uint16_t* p, F a) {
    for (int i = 0; i < 4; ++i) p[i] = float_to_half(a[i]);
}
#endif
inline F load_bfloat(const uint16_t* p) {
    return reinterpret_cast<F>(U{p[0], p[1], p[2], p[3]} << 16);
}
inline I load_int(const void* p) { I a; std::memcpy(&a, p, 16); return a; }
inline I set1_int(int32_t a) { return I{a, a, a, a}; }
inline I and_int(I a, I b) { return a & b; }
inline I or_int(I a, I b) { return a | b; }
inline I add_int(I a, I b) { return a + b; }
template <int kBits> inline I shift_right(I a) { return reinterpret_cast<I>(reinterpret_cast<U>(a) >> kBits); }
template <int kBits> inline I shift_left(I a) { return reinterpret_cast<I>(reinterpret_cast<U>(a) << kBits); }
inline F to_float(I a) { return __builtin_convertvector(a, F); }
inline I to_int(F a) { return __builtin_convertvector(round(a), I); }
inline void store_int(void* p, I a) { std::memcpy(p, &a, 16); }
inline void store_int16(int16_t* p, I a) {
    for (int i = 0; i < 4; ++i) p[i] = static_cast<int16_t>(a[i] > 32767 ? 32767 : a[i] < -32768 ? -32768 : a[i]);
}
inline void store_quads(int8_t* p, const I (&a)[4]) {
    for (int column = 0; column < 16; ++column)
        p[4 * quad_of(column) + byte_in_quad(column)] = static_cast<int8_t>(a[column / 4][column % 4]);
}
inline I dot_pairs(I acc, I a, I b) {
#if defined(__SSE2__)
    return acc + reinterpret_cast<I>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
#elif defined(__aarch64__)
    const int16x8_t x = reinterpret_cast<int16x8_t>(a), y = reinterpret_cast<int16x8_t>(b);
    const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
    return acc + reinterpret_cast<I>(vpaddq_s32(low, high));
#else
    return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}
inline I high_bytes(I a) { return reinterpret_cast<I>(reinterpret_cast<S>(a) >> 8); }
inline I low_bytes(I a) { return reinterpret_cast<I>(reinterpret_cast<S>(reinterpret_cast<S>(a) << 8) >> 8); }
template <bool kUsesHighestBit> inline I dot_quads(I acc, I a, I b) {
    acc = dot_pairs(acc, a & 0x00ff00ff, low_bytes(b));
    return dot_pairs(acc, (a >> 8) & 0x00ff00ff, high_bytes(b));
}
inline I load_table(const uint8_t* p) { return load_int(p); }
inline bool has_bfloat_pairs() { return false; }
inline I lookup(I table, I codes) {
    uint8_t bytes[16], found[16];
    std::memcpy(bytes, &table, 16);
    std::memcpy(found, &codes, 16);
    for (uint8_t& code : found) code = bytes[code & 15];
    return load_int(found);
}

}  // namespace layerscale::native
