// Two AVX2 registers a vector.
// Included by simd.h alone.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "simd_x86.h"

namespace layerscale::native {

using F = __m256;
using I = __m256i;
constexpr int kWidth = 8;
inline F load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, F a) { _mm256_storeu_ps(p, a); }
inline F set1(float a) { return _mm256_set1_ps(a); }
inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F div(F a, F b) { return _mm256_div_ps(a, b); }
inline F max(F a, F b) { return _mm256_max_ps(a, b); }
inline F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F zero_if_less(F a, F b, F value) { return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_NLT_UQ), value); }
inline F load_half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline void store_half(uint16_t* p, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
inline F load_bfloat(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline I load_int(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline I set1_int(int32_t a) { return _mm256_set1_epi32(a); }
inline I and_int(I a, I b) { return _mm256_and_si256(a, b); }
inline I or_int(I a, I b) { return _mm256_or_si256(a, b); }
inline I add_int(I a, I b) { return _mm256_add_epi32(a, b); }
template <int kBits> inline I shift_right(I a) { return _mm256_srli_epi32(a, kBits); }
template <int kBits> inline I shift_left(I a) { return _mm256_slli_epi32(a, kBits); }
inline F to_float(I a) { return _mm256_cvtepi32_ps(a); }
inline I as_int(F a) { return _mm256_castps_si256(a); }
inline F as_float(I a) { return _mm256_castsi256_ps(a); }
inline I to_int(F a) { return _mm256_cvtps_epi32(a); }
inline void store_int(void* p, I a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
inline void store_int16(int16_t* p, I a) {
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, a), 0x88);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
inline void store_quads(int8_t* p, const I (&a)[2]) {
    const __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(a[0], a[1]), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_shuffle_epi8(bytes, quads_of_columns()));
}
inline I dot_pairs(I acc, I a, I b) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
    // Keeps GCC from reassociating a row of these sums into a tree, whose products it would spill to the stack.
    asm("" : "+x"(acc));
    return acc;
}
inline I high_bytes(I a) { return _mm256_srai_epi16(a, 8); }
inline I low_bytes(I a) { return high_bytes(_mm256_slli_epi16(a, 8)); }
template <bool kUsesHighestBit> inline I dot_quads(I acc, I a, I b) {
    if constexpr (kUsesHighestBit) {  // the sums of two products below would not fit 16 bits
        const I bytes = _mm256_set1_epi32(0x00ff00ff);
        acc = dot_pairs(acc, _mm256_and_si256(a, bytes), low_bytes(b));
        return dot_pairs(acc, _mm256_and_si256(_mm256_srli_epi32(a, 8), bytes), high_bytes(b));
    }
    return dot_pairs(acc, _mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
}
inline bool has_bfloat_pairs() { return false; }
inline I lookup(I table, I codes) { return _mm256_shuffle_epi8(table, codes); }
inline I load_table(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

}  // namespace layerscale::native
