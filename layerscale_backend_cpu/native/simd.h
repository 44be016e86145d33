// Vectors of 16 lanes on every instruction set: one AVX-512 register, two of AVX2, or four of 128 bits.
//
// A kernel is written once over Vf (16 floats) and Vi (16 int32, or 32 int16 in pairs). This file is the only one that
// knows instruction sets. Fused multiply-add is explicit everywhere (the build forbids the compiler to contract), so
// that the same value computed by two template instances has the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Kernels hold their sums in registers only if everything they call is inlined, which compilers do not do by themselves
// with calls this deep.
#define LAYERSCALE_INLINE inline __attribute__((always_inline))

namespace layerscale {

constexpr int kLanes = 16;

inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    uint32_t bits = static_cast<uint32_t>(half & 0x7fffu) << 13;
    float value;
    if ((half & 0x7c00u) == 0x7c00u) {
        bits |= 0x7f800000u;  // infinity and NaN keep their exponent
        std::memcpy(&value, &bits, 4);
    } else {
        std::memcpy(&value, &bits, 4);
        value *= 0x1p112f;  // re-bias the exponent; exact for subnormals too
        std::memcpy(&bits, &value, 4);
    }
    bits |= sign;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Round to nearest even, overflow to infinity, as the hardware conversion does.
inline uint16_t float_to_half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (bits < 0x38800000u) {  // subnormal: let the float adder round at 2^-24
        float magnitude;
        std::memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f;
        std::memcpy(&bits, &magnitude, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
    }
    bits += 0xfffu + ((bits >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((bits - 0x38000000u) >> 13));
}

namespace native {  // one hardware register: F floats, I integers, kWidth 32-bit lanes

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

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
inline void store_int16(int16_t* p, I a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(a));
}
inline I dot_pairs(I acc, I a, I b) { return _mm512_dpwssd_epi32(acc, a, b); }
inline I lookup16(I table, I codes) {  // the odd bytes ask for index 0x80: zero
    return _mm512_shuffle_epi8(table, _mm512_or_si512(codes, _mm512_set1_epi32(static_cast<int>(0x80008000u))));
}
inline I load_table(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

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
inline void store_int16(int16_t* p, I a) {
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, a), 0x88);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
inline I dot_pairs(I acc, I a, I b) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
    // Keeps GCC from reassociating a row of these sums into a tree, whose products it would spill to the stack.
    asm("" : "+x"(acc));
    return acc;
}
inline I lookup16(I table, I codes) {  // the odd bytes ask for index 0x80: zero
    return _mm256_shuffle_epi8(table, _mm256_or_si256(codes, _mm256_set1_epi32(static_cast<int>(0x80008000u))));
}
inline I load_table(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

#else  // any machine: 128-bit vectors of the compiler's own, and the few instructions it does not find by itself

typedef float F __attribute__((vector_size(16)));
typedef int32_t I __attribute__((vector_size(16)));
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
inline void store_int16(int16_t* p, I a) {
    for (int i = 0; i < 4; ++i) p[i] = static_cast<int16_t>(a[i] > 32767 ? 32767 : a[i] < -32768 ? -32768 : a[i]);
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
inline I load_table(const uint8_t* p) { return load_int(p); }
inline I lookup16(I table, I codes) {
    uint8_t bytes[16];
    std::memcpy(bytes, &table, 16);
    I out;
    for (int i = 0; i < 4; ++i) out[i] = bytes[codes[i] & 15] | (bytes[(codes[i] >> 16) & 15] << 16);
    return out;
}

#endif

}  // namespace native

constexpr int kParts = kLanes / native::kWidth;

struct Vf {
    native::F part[kParts];
};
struct Vi {
    native::I part[kParts];
};

#define LAYERSCALE_EACH(statement) for (int i = 0; i < kParts; ++i) { statement; }

inline Vf load(const float* p) { Vf r; LAYERSCALE_EACH(r.part[i] = native::load(p + i * native::kWidth)) return r; }
inline void store(float* p, Vf a) { LAYERSCALE_EACH(native::store(p + i * native::kWidth, a.part[i])) }
inline Vf set1(float a) { Vf r; LAYERSCALE_EACH(r.part[i] = native::set1(a)) return r; }
inline Vf zero() { return set1(0.0f); }
inline Vf add(Vf a, Vf b) { LAYERSCALE_EACH(a.part[i] = native::add(a.part[i], b.part[i])) return a; }
inline Vf sub(Vf a, Vf b) { LAYERSCALE_EACH(a.part[i] = native::sub(a.part[i], b.part[i])) return a; }
inline Vf mul(Vf a, Vf b) { LAYERSCALE_EACH(a.part[i] = native::mul(a.part[i], b.part[i])) return a; }
inline Vf div(Vf a, Vf b) { LAYERSCALE_EACH(a.part[i] = native::div(a.part[i], b.part[i])) return a; }
inline Vf max(Vf a, Vf b) { LAYERSCALE_EACH(a.part[i] = native::max(a.part[i], b.part[i])) return a; }
inline Vf abs(Vf a) { LAYERSCALE_EACH(a.part[i] = native::abs(a.part[i])) return a; }
inline Vf round(Vf a) { LAYERSCALE_EACH(a.part[i] = native::round(a.part[i])) return a; }
inline Vf fma(Vf a, Vf b, Vf c) { LAYERSCALE_EACH(c.part[i] = native::fma(a.part[i], b.part[i], c.part[i])) return c; }
inline Vf zero_if_less(Vf a, Vf b, Vf value) {
    LAYERSCALE_EACH(value.part[i] = native::zero_if_less(a.part[i], b.part[i], value.part[i]))
    return value;
}
inline Vf load_half(const uint16_t* p) {
    Vf r; LAYERSCALE_EACH(r.part[i] = native::load_half(p + i * native::kWidth)) return r;
}
inline void store_half(uint16_t* p, Vf a) { LAYERSCALE_EACH(native::store_half(p + i * native::kWidth, a.part[i])) }
inline Vf load_bfloat(const uint16_t* p) {
    Vf r; LAYERSCALE_EACH(r.part[i] = native::load_bfloat(p + i * native::kWidth)) return r;
}
inline Vi load_int(const uint8_t* p) {
    Vi r; LAYERSCALE_EACH(r.part[i] = native::load_int(p + 4 * i * native::kWidth)) return r;
}
inline Vi set1_int(int32_t a) { Vi r; LAYERSCALE_EACH(r.part[i] = native::set1_int(a)) return r; }
inline Vi and_int(Vi a, Vi b) { LAYERSCALE_EACH(a.part[i] = native::and_int(a.part[i], b.part[i])) return a; }
inline Vi or_int(Vi a, Vi b) { LAYERSCALE_EACH(a.part[i] = native::or_int(a.part[i], b.part[i])) return a; }
inline Vi add_int(Vi a, Vi b) { LAYERSCALE_EACH(a.part[i] = native::add_int(a.part[i], b.part[i])) return a; }
template <int kBits> inline Vi shift_right(Vi a) {
    LAYERSCALE_EACH(a.part[i] = native::shift_right<kBits>(a.part[i])) return a;
}
template <int kBits> inline Vi shift_left(Vi a) {
    LAYERSCALE_EACH(a.part[i] = native::shift_left<kBits>(a.part[i])) return a;
}
inline Vf to_float(Vi a) { Vf r; LAYERSCALE_EACH(r.part[i] = native::to_float(a.part[i])) return r; }
inline Vi to_int(Vf a) { Vi r; LAYERSCALE_EACH(r.part[i] = native::to_int(a.part[i])) return r; }
inline Vi as_int(Vf a) { Vi r; LAYERSCALE_EACH(r.part[i] = native::as_int(a.part[i])) return r; }
inline Vf as_float(Vi a) { Vf r; LAYERSCALE_EACH(r.part[i] = native::as_float(a.part[i])) return r; }
inline void store_int16(int16_t* p, Vi a) { LAYERSCALE_EACH(native::store_int16(p + i * native::kWidth, a.part[i])) }

// acc += a.low * b.low + a.high * b.high in each 32-bit lane, the halves as signed 16-bit numbers.
inline Vi dot_pairs(Vi acc, Vi a, Vi b) {
    LAYERSCALE_EACH(acc.part[i] = native::dot_pairs(acc.part[i], a.part[i], b.part[i]))
    return acc;
}
inline Vi load_table(const uint8_t* p) { Vi r; LAYERSCALE_EACH(r.part[i] = native::load_table(p)) return r; }
// table[code] for the two codes below 16 in each lane's halves.
inline Vi lookup16(Vi table, Vi codes) {
    LAYERSCALE_EACH(codes.part[i] = native::lookup16(table.part[i], codes.part[i]))
    return codes;
}

#undef LAYERSCALE_EACH

// Horizontal reductions go through memory in a fixed order: the same on every instruction set.
inline float reduce_add(Vf a) {
    float v[kLanes];
    store(v, a);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) v[i] += v[i + width];
    return v[0];
}
inline float reduce_max(Vf a) {
    float v[kLanes];
    store(v, a);
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int i = 0; i < width; ++i) v[i] = v[i] > v[i + width] ? v[i] : v[i + width];
    return v[0];
}

// e^x for x <= 88, to about 2 units in the last place; exactly 0 below -87 (and for -infinity).
// Cody-Waite reduction x = n ln 2 + r, then the Taylor polynomial of degree 6 on |r| <= ln 2 / 2.
inline Vf exp(Vf x) {
    const Vf lowest = set1(-87.0f);
    const Vf clamped = max(lowest, x);  // in this order NaN passes
    const Vf n = round(mul(clamped, set1(1.44269504f)));
    Vf r = fma(n, set1(-0.693359375f), clamped);
    r = fma(n, set1(2.12194440e-4f), r);
    Vf p = set1(1.0f / 720.0f);
    p = fma(p, r, set1(1.0f / 120.0f));
    p = fma(p, r, set1(1.0f / 24.0f));
    p = fma(p, r, set1(1.0f / 6.0f));
    p = fma(p, r, set1(0.5f));
    p = fma(p, r, set1(1.0f));
    p = fma(p, r, set1(1.0f));
    const Vi exponent = shift_left<23>(to_int(n));
    return zero_if_less(x, lowest, as_float(add_int(as_int(p), exponent)));
}

}  // namespace layerscale
