// One AVX-512 register a vector, with VNNI integer dot products.
// Included by simd.h alone.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "simd_x86.h"

namespace layerscale::native {

using F = __m512;
using I = __m512i;
constexpr int kWidth = 16;
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a); }
inline F set1(float a) { return _mm512_set1_ps(a); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F abs(F a) { return _mm512_abs_ps(a); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F zero_if_less(F a, F b, F value) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), value); }
inline float reduce_add(F a) { return reduce_add(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1))); }
inline float reduce_max(F a) { return reduce_max(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1))); }
inline F load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline void store_half(uint16_t* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
inline F load_bfloat(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline I load_int(const void* p) { return _mm512_loadu_si512(p); }
inline I set1_int(int32_t a) { return _mm512_set1_epi32(a); }
inline I and_int(I a, I b) { return _mm512_and_si512(a, b); }
inline I or_int(I a, I b) { return _mm512_or_si512(a, b); }
inline I add_int(I a, I b) { return _mm512_add_epi32(a, b); }
template <int kBits> inline I shift_right(I a) { return _mm512_srli_epi32(a, kBits); }
template <int kBits> inline I shift_left(I a) { return _mm512_slli_epi32(a, kBits); }
inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
inline I as_int(F a) { return _mm512_castps_si512(a); }
inline F as_float(I a) { return _mm512_castsi512_ps(a); }
inline I to_int(F a) { return _mm512_cvtps_epi32(a); }
inline void store_int(void* p, I a) { _mm512_storeu_si512(p, a); }
inline void store_int16(int16_t* p, I a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(a));
}
inline void store_quads(int8_t* p, const I (&a)[1]) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_shuffle_epi8(_mm512_cvtepi32_epi8(a[0]), quads_of_columns()));
}
inline I dot_pairs(I acc, I a, I b) { return _mm512_dpwssd_epi32(acc, a, b); }
inline I high_bytes(I a) { return _mm512_srai_epi16(a, 8); }
inline I low_bytes(I a) { return high_bytes(_mm512_slli_epi16(a, 8)); }
template <bool kUsesHighestBit> inline I dot_quads(I acc, I a, I b) { return _mm512_dpbusd_epi32(acc, a, b); }
// Not all processors of this level know bfloat16: written as assembly, so that the compiler uses the instructions nowhere
// else.
#define LAYERSCALE_BFLOAT_PAIRS
inline bool has_bfloat_pairs() { return __builtin_cpu_supports("avx512bf16"); }
inline I to_bfloats(F first, F second) {
    I halves;
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(halves) : "v"(second), "v"(first));
    return halves;
}
inline I interleave_halves(I a) {
    const I order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                     23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, a);
}
inline F dot_bfloat_pairs(F acc, I a, I b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
}
inline I lookup(I table, I codes) { return _mm512_shuffle_epi8(table, codes); }
inline I load_table(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

}  // namespace layerscale::native
