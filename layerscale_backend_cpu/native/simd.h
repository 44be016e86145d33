// Vectors of 16 lanes on every instruction set: one AVX-512 register, two of AVX2, or four of 128 bits.
//
// A kernel is written once over Vf (16 floats) and Vi (16 int32, or 32 int16 in pairs). The files included here are the
// only ones that know instructions. Fused multiply-add is explicit everywhere (the build forbids the compiler to
// contract), so that the same value computed by two template instances has the same bits.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "half.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include "simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "simd_avx2.h"
#else
#include "simd_generic.h"
#endif

// Kernels hold their sums in registers only if everything they call is inlined, which compilers do not do by themselves
// with calls this deep.
#define LAYERSCALE_INLINE inline __attribute__((always_inline))

namespace layerscale {

constexpr int kLanes = 16;

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
inline void store_int(int32_t* p, Vi a) { LAYERSCALE_EACH(native::store_int(p + i * native::kWidth, a.part[i])) }
inline void store_int16(int16_t* p, Vi a) { LAYERSCALE_EACH(native::store_int16(p + i * native::kWidth, a.part[i])) }
// 16 columns below 128 in magnitude, as bytes in quads (quads.h).
inline void store_quads(int8_t* p, Vi a) { native::store_quads(p, a.part); }

// acc += a.low * b.low + a.high * b.high in each 32-bit lane, the halves as signed 16-bit numbers.
inline Vi dot_pairs(Vi acc, Vi a, Vi b) {
    LAYERSCALE_EACH(acc.part[i] = native::dot_pairs(acc.part[i], a.part[i], b.part[i]))
    return acc;
}
// acc += the four products of a's unsigned bytes with b's signed ones in each 32-bit lane. Unless kUsesHighestBit, a's bytes are
// below 128, which spares some instruction sets a detour.
template <bool kUsesHighestBit> inline Vi dot_quads(Vi acc, Vi a, Vi b) {
    LAYERSCALE_EACH(acc.part[i] = native::dot_quads<kUsesHighestBit>(acc.part[i], a.part[i], b.part[i]))
    return acc;
}
// The signed bytes in the lower and in the upper part of each 16-bit half, widened to it.
inline Vi low_bytes(Vi a) { LAYERSCALE_EACH(a.part[i] = native::low_bytes(a.part[i])) return a; }
inline Vi high_bytes(Vi a) { LAYERSCALE_EACH(a.part[i] = native::high_bytes(a.part[i])) return a; }
inline Vi load_table(const uint8_t* p) { Vi r; LAYERSCALE_EACH(r.part[i] = native::load_table(p)) return r; }
// table[code] for each byte, a code below 16.
inline Vi lookup(Vi table, Vi codes) {
    LAYERSCALE_EACH(codes.part[i] = native::lookup(table.part[i], codes.part[i]))
    return codes;
}

// Whether the processor multiplies pairs of bfloat16 (the upper half of a float), which takes no longer than one float.
inline bool has_bfloat_pairs() { return native::has_bfloat_pairs(); }
#ifdef LAYERSCALE_BFLOAT_PAIRS  // what follows needs has_bfloat_pairs()
// 32 numbers rounded to the nearest bfloat16, in order.
inline Vi to_bfloats(Vf first, Vf second) { return {{native::to_bfloats(first.part[0], second.part[0])}}; }
// The n-th lane gets the n-th 16-bit numbers of the vector's lower and upper half.
inline Vi interleave_halves(Vi a) { return {{native::interleave_halves(a.part[0])}}; }
// acc += a.low * b.low + a.high * b.high in each lane, the halves as bfloat16. Subnormal numbers count as 0.
inline Vf dot_bfloat_pairs(Vf acc, Vi a, Vi b) {
    return {{native::dot_bfloat_pairs(acc.part[0], a.part[0], b.part[0])}};
}
#endif

#undef LAYERSCALE_EACH

inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }
inline void prefetch_to_write(const void* p) { __builtin_prefetch(p, 1, 3); }

// body(0) ... body(kCount - 1), each with its index as a constant: compilers keep an array in registers only if no loop runs
// over it.
template <typename Body, int... kIndex>
LAYERSCALE_INLINE void unroll(const Body& body, std::integer_sequence<int, kIndex...>) {
    (body(std::integral_constant<int, kIndex>()), ...);
}
template <int kCount, typename Body>
LAYERSCALE_INLINE void unroll(const Body& body) {
    unroll(body, std::make_integer_sequence<int, kCount>());
}

// Horizontal reductions halve the vector until one lane is left: in the same order on every instruction set.
inline float reduce_add(Vf a) {
    for (int half = kParts / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) a.part[i] = native::add(a.part[i], a.part[i + half]);
    return native::reduce_add(a.part[0]);
}
inline float reduce_max(Vf a) {
    for (int half = kParts / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) a.part[i] = native::max(a.part[i], a.part[i + half]);
    return native::reduce_max(a.part[0]);
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

// To about one part in 10^7 of 1; NaN stays.
inline Vf tanh(Vf x) {
    const Vf shrunk = exp(mul(abs(x), set1(-2.0f)));
    const Vf magnitude = div(sub(set1(1.0f), shrunk), add(set1(1.0f), shrunk));
    return as_float(or_int(as_int(magnitude), and_int(as_int(x), set1_int(INT32_MIN))));
}

}  // namespace layerscale
