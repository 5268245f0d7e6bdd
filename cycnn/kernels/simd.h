/* One vector type per build: VL lanes of `real`, float or (CYCNN_DOUBLE) double.

   Every function is one or two instructions.  The instruction set comes from the compiler's own
   flags; CYCNN_PORTABLE asks for the last branch, which any C compiler can build.

   MR rows x NR columns, two vectors, is the first of the register tiles (tile.pxd): 2 * MR
   accumulators, two weights and one broadcast input fit the register file (16 registers: 6 x 2, 32
   registers: 12 x 2). */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef CYCNN_DOUBLE
typedef double real;
#else
typedef float real;
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define INLINE static __forceinline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

/* PICK(f, d): the float or the double name; PS(op): the intrinsic's suffix. */
#ifdef CYCNN_DOUBLE
#define PICK(f, d) d
#define PS(name) name##_pd
#else
#define PICK(f, d) f
#define PS(name) name##_ps
#endif
#define FRACTION PICK(23, 52) /* bits of a real below its exponent */

#if defined(__AVX512F__) && !defined(CYCNN_PORTABLE)
#include <immintrin.h>
#define VL PICK(16, 8)
#define MR 12
typedef PICK(__m512, __m512d) vf;
typedef PICK(__mmask16, __mmask8) vm;
INLINE vm vm_first(ptrdiff_t n) { return (vm)(n >= VL ? (1u << VL) - 1 : (1u << n) - 1); }
INLINE vf vf_load(const real *p) { return PS(_mm512_loadu)(p); }
INLINE void vf_store(real *p, vf v) { PS(_mm512_storeu)(p, v); }
INLINE vf vf_load_part(const real *p, ptrdiff_t n) { return PS(_mm512_maskz_loadu)(vm_first(n), p); }
INLINE void vf_store_part(real *p, vf v, ptrdiff_t n) { PS(_mm512_mask_storeu)(p, vm_first(n), v); }
INLINE vf vf_set1(real s) { return PS(_mm512_set1)(s); }
INLINE vf vf_bcast(const real *p) { return PS(_mm512_set1)(*p); }
INLINE vf vf_zero(void) { return PS(_mm512_setzero)(); }
INLINE vf vf_add(vf a, vf b) { return PS(_mm512_add)(a, b); }
INLINE vf vf_sub(vf a, vf b) { return PS(_mm512_sub)(a, b); }
INLINE vf vf_mul(vf a, vf b) { return PS(_mm512_mul)(a, b); }
INLINE vf vf_div(vf a, vf b) { return PS(_mm512_div)(a, b); }
INLINE vf vf_sqrt(vf a) { return PS(_mm512_sqrt)(a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return PS(_mm512_fmadd)(a, b, c); }
INLINE vf vf_fnma(vf a, vf b, vf c) { return PS(_mm512_fnmadd)(a, b, c); }
INLINE vf vf_max(vf a, vf b) { return PS(_mm512_max)(a, b); }
INLINE vf vf_min(vf a, vf b) { return PS(_mm512_min)(a, b); }
INLINE vf vf_load_u8(const uint8_t *p) {
    return PICK(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p))),
                _mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))));
}
INLINE void vf_store_u8(uint8_t *p, vf v) {
    __m128i bytes = PICK(_mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)),
                         _mm256_cvtepi32_epi8(_mm512_cvttpd_epi32(v)));
    memcpy(p, &bytes, VL);
}
#define AS_BITS(v) PICK(_mm512_castps_si512, _mm512_castpd_si512)(v)
#define AS_REALS(v) PICK(_mm512_castsi512_ps, _mm512_castsi512_pd)(v)
INLINE vf vf_and(vf a, vf b) { return PS(_mm512_and)(a, b); }
INLINE vf vf_or(vf a, vf b) { return PS(_mm512_or)(a, b); }
INLINE vf vf_shift_up(vf v) {
    return AS_REALS(PICK(_mm512_slli_epi32, _mm512_slli_epi64)(AS_BITS(v), FRACTION));
}
INLINE vf vf_shift_down(vf v) {
    return AS_REALS(PICK(_mm512_srli_epi32, _mm512_srli_epi64)(AS_BITS(v), FRACTION));
}
INLINE vf vf_zip_low(vf a, vf b) {
    return PICK(_mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b),
                _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b));
}
INLINE vf vf_zip_high(vf a, vf b) {
    return PICK(_mm512_permutex2var_ps(a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b),
                _mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b));
}
#define COMPARE(a, b, how) PICK(_mm512_cmp_ps_mask, _mm512_cmp_pd_mask)(a, b, how)
INLINE vm vm_or(vm a, vm b) { return (vm)(a | b); }
INLINE vf vf_select(vm m, vf a, vf b) { return PS(_mm512_mask_blend)(m, b, a); }

#elif defined(__AVX2__) && defined(__FMA__) && !defined(CYCNN_PORTABLE)
#include <immintrin.h>
#define VL PICK(8, 4)
#define MR 6
typedef PICK(__m256, __m256d) vf;
typedef PICK(__m256, __m256d) vm;
INLINE __m256i lanes_first(ptrdiff_t n) { /* all ones in the first n lanes */
    static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    ptrdiff_t words = (n > VL ? VL : n) * (ptrdiff_t)(sizeof(real) / 4);
    return _mm256_loadu_si256((const __m256i *)(ones + 8 - words));
}
INLINE vf vf_load(const real *p) { return PS(_mm256_loadu)(p); }
INLINE void vf_store(real *p, vf v) { PS(_mm256_storeu)(p, v); }
INLINE vf vf_load_part(const real *p, ptrdiff_t n) { return PS(_mm256_maskload)(p, lanes_first(n)); }
INLINE void vf_store_part(real *p, vf v, ptrdiff_t n) { /* masked, 12 cycles on a Zen 4 */
    if (n >= VL) vf_store(p, v); else PS(_mm256_maskstore)(p, lanes_first(n), v);
}
INLINE vf vf_set1(real s) { return PS(_mm256_set1)(s); }
INLINE vf vf_bcast(const real *p) { return PICK(_mm256_broadcast_ss, _mm256_broadcast_sd)(p); }
INLINE vf vf_zero(void) { return PS(_mm256_setzero)(); }
INLINE vf vf_add(vf a, vf b) { return PS(_mm256_add)(a, b); }
INLINE vf vf_sub(vf a, vf b) { return PS(_mm256_sub)(a, b); }
INLINE vf vf_mul(vf a, vf b) { return PS(_mm256_mul)(a, b); }
INLINE vf vf_div(vf a, vf b) { return PS(_mm256_div)(a, b); }
INLINE vf vf_sqrt(vf a) { return PS(_mm256_sqrt)(a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return PS(_mm256_fmadd)(a, b, c); }
INLINE vf vf_fnma(vf a, vf b, vf c) { return PS(_mm256_fnmadd)(a, b, c); }
INLINE vf vf_max(vf a, vf b) { return PS(_mm256_max)(a, b); }
INLINE vf vf_min(vf a, vf b) { return PS(_mm256_min)(a, b); }
INLINE vf vf_load_u8(const uint8_t *p) {
    int32_t low;
    memcpy(&low, p, 4);
    return PICK(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))),
                _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(low))));
}
INLINE void vf_store_u8(uint8_t *p, vf v) {
    __m256i wide = PICK(_mm256_cvttps_epi32(v), _mm256_castsi128_si256(_mm256_cvttpd_epi32(v)));
    __m128i bytes = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    bytes = _mm_packus_epi16(bytes, bytes);
    memcpy(p, &bytes, VL);
}
#define AS_BITS(v) PICK(_mm256_castps_si256, _mm256_castpd_si256)(v)
#define AS_REALS(v) PICK(_mm256_castsi256_ps, _mm256_castsi256_pd)(v)
INLINE vf vf_and(vf a, vf b) { return PS(_mm256_and)(a, b); }
INLINE vf vf_or(vf a, vf b) { return PS(_mm256_or)(a, b); }
INLINE vf vf_shift_up(vf v) {
    return AS_REALS(PICK(_mm256_slli_epi32, _mm256_slli_epi64)(AS_BITS(v), FRACTION));
}
INLINE vf vf_shift_down(vf v) {
    return AS_REALS(PICK(_mm256_srli_epi32, _mm256_srli_epi64)(AS_BITS(v), FRACTION));
}
#define HALVES(a, b, which) PS(_mm256_permute2f128)(PS(_mm256_unpacklo)(a, b), PS(_mm256_unpackhi)(a, b), which)
INLINE vf vf_zip_low(vf a, vf b) { return HALVES(a, b, 0x20); }
INLINE vf vf_zip_high(vf a, vf b) { return HALVES(a, b, 0x31); }
#define COMPARE(a, b, how) PS(_mm256_cmp)(a, b, how)
INLINE vm vm_or(vm a, vm b) { return PS(_mm256_or)(a, b); }
INLINE vf vf_select(vm m, vf a, vf b) { return PS(_mm256_blendv)(b, a, m); }

#else /* 128 bits: SSE4.1, NEON, or plain C with vectors where the compiler has them */
#define VL PICK(4, 2)
#if defined(__SSE4_1__) && !defined(CYCNN_PORTABLE)
#include <smmintrin.h>
#define MR 6
typedef PICK(__m128, __m128d) vf;
typedef PICK(__m128, __m128d) vm;
INLINE vf vf_load(const real *p) { return PS(_mm_loadu)(p); }
INLINE void vf_store(real *p, vf v) { PS(_mm_storeu)(p, v); }
INLINE vf vf_set1(real s) { return PS(_mm_set1)(s); }
INLINE vf vf_add(vf a, vf b) { return PS(_mm_add)(a, b); }
INLINE vf vf_sub(vf a, vf b) { return PS(_mm_sub)(a, b); }
INLINE vf vf_mul(vf a, vf b) { return PS(_mm_mul)(a, b); }
INLINE vf vf_div(vf a, vf b) { return PS(_mm_div)(a, b); }
INLINE vf vf_sqrt(vf a) { return PS(_mm_sqrt)(a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return vf_add(vf_mul(a, b), c); }
INLINE vf vf_fnma(vf a, vf b, vf c) { return vf_sub(c, vf_mul(a, b)); }
INLINE vf vf_max(vf a, vf b) { return PS(_mm_max)(a, b); }
INLINE vf vf_min(vf a, vf b) { return PS(_mm_min)(a, b); }
INLINE vm vf_gt(vf a, vf b) { return PS(_mm_cmpgt)(a, b); }
INLINE vm vf_ge(vf a, vf b) { return PS(_mm_cmpge)(a, b); }
INLINE vm vf_eq(vf a, vf b) { return PS(_mm_cmpeq)(a, b); }
INLINE vm vf_unordered(vf a, vf b) { return PS(_mm_cmpunord)(a, b); }
INLINE vm vm_or(vm a, vm b) { return PS(_mm_or)(a, b); }
INLINE vf vf_select(vm m, vf a, vf b) { return PS(_mm_blendv)(b, a, m); }
#define AS_BITS(v) PICK(_mm_castps_si128, _mm_castpd_si128)(v)
#define AS_REALS(v) PICK(_mm_castsi128_ps, _mm_castsi128_pd)(v)
INLINE vf vf_and(vf a, vf b) { return PS(_mm_and)(a, b); }
INLINE vf vf_or(vf a, vf b) { return PS(_mm_or)(a, b); }
INLINE vf vf_shift_up(vf v) {
    return AS_REALS(PICK(_mm_slli_epi32, _mm_slli_epi64)(AS_BITS(v), FRACTION));
}
INLINE vf vf_shift_down(vf v) {
    return AS_REALS(PICK(_mm_srli_epi32, _mm_srli_epi64)(AS_BITS(v), FRACTION));
}
INLINE vf vf_zip_low(vf a, vf b) { return PS(_mm_unpacklo)(a, b); }
INLINE vf vf_zip_high(vf a, vf b) { return PS(_mm_unpackhi)(a, b); }
#elif defined(__aarch64__) && !defined(CYCNN_PORTABLE)
#include <arm_neon.h>
#define MR 12
#define NQ(name) PICK(name##_f32, name##_f64)
typedef PICK(float32x4_t, float64x2_t) vf;
typedef PICK(uint32x4_t, uint64x2_t) vm;
INLINE vf vf_load(const real *p) { return NQ(vld1q)(p); }
INLINE void vf_store(real *p, vf v) { NQ(vst1q)(p, v); }
INLINE vf vf_set1(real s) { return NQ(vdupq_n)(s); }
INLINE vf vf_add(vf a, vf b) { return NQ(vaddq)(a, b); }
INLINE vf vf_sub(vf a, vf b) { return NQ(vsubq)(a, b); }
INLINE vf vf_mul(vf a, vf b) { return NQ(vmulq)(a, b); }
INLINE vf vf_div(vf a, vf b) { return NQ(vdivq)(a, b); }
INLINE vf vf_sqrt(vf a) { return NQ(vsqrtq)(a); }
INLINE vf vf_fma(vf a, vf b, vf c) { return NQ(vfmaq)(c, a, b); }
INLINE vf vf_fnma(vf a, vf b, vf c) { return NQ(vfmsq)(c, a, b); }
INLINE vm vf_gt(vf a, vf b) { return NQ(vcgtq)(a, b); }
INLINE vm vf_ge(vf a, vf b) { return NQ(vcgeq)(a, b); }
INLINE vm vf_eq(vf a, vf b) { return NQ(vceqq)(a, b); }
INLINE vm vm_or(vm a, vm b) { return PICK(vorrq_u32, vorrq_u64)(a, b); }
INLINE vf vf_select(vm m, vf a, vf b) { return NQ(vbslq)(m, a, b); }
INLINE vf vf_max(vf a, vf b) { return vf_select(vf_gt(a, b), a, b); }
INLINE vf vf_min(vf a, vf b) { return vf_select(vf_gt(b, a), a, b); }
INLINE vm vf_unordered(vf a, vf b) { /* neither a >= b nor b >= a */
    return PICK(vmvnq_u32(vm_or(vf_ge(a, b), vf_ge(b, a))),
                vreinterpretq_u64_u32(vmvnq_u32(vreinterpretq_u32_u64(vm_or(vf_ge(a, b), vf_ge(b, a))))));
}
#define NU(name) PICK(name##_u32, name##_u64)
#define AS_BITS(v) PICK(vreinterpretq_u32_f32, vreinterpretq_u64_f64)(v)
#define AS_REALS(v) PICK(vreinterpretq_f32_u32, vreinterpretq_f64_u64)(v)
INLINE vf vf_and(vf a, vf b) { return AS_REALS(NU(vandq)(AS_BITS(a), AS_BITS(b))); }
INLINE vf vf_or(vf a, vf b) { return AS_REALS(NU(vorrq)(AS_BITS(a), AS_BITS(b))); }
INLINE vf vf_shift_up(vf v) { return AS_REALS(NU(vshlq_n)(AS_BITS(v), FRACTION)); }
INLINE vf vf_shift_down(vf v) { return AS_REALS(NU(vshrq_n)(AS_BITS(v), FRACTION)); }
INLINE vf vf_zip_low(vf a, vf b) { return NQ(vzip1q)(a, b); }
INLINE vf vf_zip_high(vf a, vf b) { return NQ(vzip2q)(a, b); }
#else
#include <math.h>
#define MR 6
typedef struct { real lane[VL]; } vf;
typedef struct { int lane[VL]; } vm;
#define EACH(type, value) type r; for (int i = 0; i < VL; i++) r.lane[i] = (value); return r
INLINE vf vf_load(const real *p) { EACH(vf, p[i]); }
INLINE void vf_store(real *p, vf v) { for (int i = 0; i < VL; i++) p[i] = v.lane[i]; }
INLINE vf vf_set1(real s) { EACH(vf, s); }
INLINE vf vf_add(vf a, vf b) { EACH(vf, a.lane[i] + b.lane[i]); }
INLINE vf vf_sub(vf a, vf b) { EACH(vf, a.lane[i] - b.lane[i]); }
INLINE vf vf_mul(vf a, vf b) { EACH(vf, a.lane[i] * b.lane[i]); }
INLINE vf vf_div(vf a, vf b) { EACH(vf, a.lane[i] / b.lane[i]); }
INLINE vf vf_sqrt(vf a) { EACH(vf, PICK(sqrtf, sqrt)(a.lane[i])); }
INLINE vf vf_fma(vf a, vf b, vf c) { EACH(vf, a.lane[i] * b.lane[i] + c.lane[i]); }
INLINE vf vf_fnma(vf a, vf b, vf c) { EACH(vf, c.lane[i] - a.lane[i] * b.lane[i]); }
INLINE vf vf_max(vf a, vf b) { EACH(vf, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
INLINE vf vf_min(vf a, vf b) { EACH(vf, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
INLINE vm vf_gt(vf a, vf b) { EACH(vm, a.lane[i] > b.lane[i]); }
INLINE vm vf_ge(vf a, vf b) { EACH(vm, a.lane[i] >= b.lane[i]); }
INLINE vm vf_eq(vf a, vf b) { EACH(vm, a.lane[i] == b.lane[i]); }
INLINE vm vf_unordered(vf a, vf b) { EACH(vm, a.lane[i] != a.lane[i] || b.lane[i] != b.lane[i]); }
INLINE vm vm_or(vm a, vm b) { EACH(vm, a.lane[i] | b.lane[i]); }
INLINE vf vf_select(vm m, vf a, vf b) { EACH(vf, m.lane[i] ? a.lane[i] : b.lane[i]); }
typedef PICK(uint32_t, uint64_t) bits;
INLINE bits as_bits(real s) { bits b; memcpy(&b, &s, sizeof b); return b; }
INLINE real as_real(bits b) { real s; memcpy(&s, &b, sizeof s); return s; }
INLINE vf vf_and(vf a, vf b) { EACH(vf, as_real(as_bits(a.lane[i]) & as_bits(b.lane[i]))); }
INLINE vf vf_or(vf a, vf b) { EACH(vf, as_real(as_bits(a.lane[i]) | as_bits(b.lane[i]))); }
INLINE vf vf_shift_up(vf v) { EACH(vf, as_real(as_bits(v.lane[i]) << FRACTION)); }
INLINE vf vf_shift_down(vf v) { EACH(vf, as_real(as_bits(v.lane[i]) >> FRACTION)); }
INLINE vf vf_zip_low(vf a, vf b) { EACH(vf, (i % 2 ? b : a).lane[i / 2]); }
INLINE vf vf_zip_high(vf a, vf b) { EACH(vf, (i % 2 ? b : a).lane[(VL + i) / 2]); }
#endif
INLINE vf vf_zero(void) { return vf_set1(0); }
INLINE vf vf_load_u8(const uint8_t *p) {
    real wide[VL];
    for (int i = 0; i < VL; i++) wide[i] = p[i];
    return vf_load(wide);
}
INLINE void vf_store_u8(uint8_t *p, vf v) {
    real wide[VL];
    vf_store(wide, v);
    for (int i = 0; i < VL; i++) p[i] = (uint8_t)wide[i];
}
INLINE vf vf_bcast(const real *p) { return vf_set1(*p); }
INLINE vf vf_load_part(const real *p, ptrdiff_t n) { /* no masked loads here: through a padded vector */
    real padded[VL] = {0};
    if (n >= VL) return vf_load(p);
    for (ptrdiff_t i = 0; i < n; i++) padded[i] = p[i];
    return vf_load(padded);
}
INLINE void vf_store_part(real *p, vf v, ptrdiff_t n) {
    real padded[VL];
    if (n >= VL) { vf_store(p, v); return; }
    vf_store(padded, v);
    for (ptrdiff_t i = 0; i < n; i++) p[i] = padded[i];
}
#endif

#ifdef COMPARE /* AVX2 and AVX-512 name the comparison by a constant */
INLINE vm vf_gt(vf a, vf b) { return COMPARE(a, b, _CMP_GT_OQ); }
INLINE vm vf_ge(vf a, vf b) { return COMPARE(a, b, _CMP_GE_OQ); }
INLINE vm vf_eq(vf a, vf b) { return COMPARE(a, b, _CMP_EQ_OQ); }
INLINE vm vf_unordered(vf a, vf b) { return COMPARE(a, b, _CMP_UNORD_Q); }
#endif

INLINE vf vf_first(vf a, vf b, ptrdiff_t n) { /* the first n lanes of a, the rest of b */
    static const real ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    return n >= VL ? a : vf_select(vf_gt(vf_load_part(ones, n), vf_zero()), a, b);
}

#define NR (2 * VL)
#define PANELS (MR / 6) /* of NR columns, in a tile of half the rows */

/* Into the first-level cache, or into the second; p may point anywhere: it never faults. */
#if defined(__GNUC__)
INLINE void prefetch(const real *p) { __builtin_prefetch(p, 0, 3); }
INLINE void prefetch_far(const real *p) { __builtin_prefetch(p, 0, 2); }
#else
INLINE void prefetch(const real *p) { (void)p; }
INLINE void prefetch_far(const real *p) { (void)p; }
#endif
