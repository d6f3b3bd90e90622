// Vectors of 16 floats or integers on every processor: one AVX-512 register, two of AVX2, or four
// of SSE2 or NEON (through the vector extensions of GCC and Clang). Sixteen lanes are a block of
// 4x4 pixels.
//
// Included inside the namespace of one instruction set, after <immintrin.h> where that exists.
// Everything is static: an inline function with external linkage could be shared between the
// instruction sets by the linker, and then run on a processor that lacks them.
#pragma once

#define AVAT3R_INLINE static inline __attribute__((always_inline))
#define EACH_PART for (int i = 0; i < kParts; i++)

// Have the compiler hold a pointer in one register: with base and index, every vector operand in
// memory would cost an operation of its own.
template <class T>
AVAT3R_INLINE void keep_in_register(T*& pointer) {
  __asm__("" : "+r"(pointer));
}

constexpr int kLanes = 16;
#if defined(__AVX512F__)
constexpr int kParts = 1, kPartLanes = 16;
#elif defined(__AVX2__)
constexpr int kParts = 2, kPartLanes = 8;
#else
constexpr int kParts = 4, kPartLanes = 4;
#endif

typedef float FloatPart __attribute__((vector_size(4 * kPartLanes)));
typedef int32_t IntPart __attribute__((vector_size(4 * kPartLanes)));

struct alignas(64) Floats {
  FloatPart part[kParts];
};
struct alignas(64) Ints {
  IntPart part[kParts];
};

AVAT3R_INLINE Floats broadcast(float value) {
  Floats r;
  EACH_PART r.part[i] = FloatPart{} + value;
  return r;
}
AVAT3R_INLINE Ints broadcast_int(int32_t value) {
  Ints r;
  EACH_PART r.part[i] = IntPart{} + value;
  return r;
}
AVAT3R_INLINE Floats load(const float* aligned) { return *(const Floats*)aligned; }
AVAT3R_INLINE Ints load(const int32_t* aligned) { return *(const Ints*)aligned; }
AVAT3R_INLINE void store(float* aligned, const Floats& a) { *(Floats*)aligned = a; }
AVAT3R_INLINE void store(int32_t* aligned, const Ints& a) { *(Ints*)aligned = a; }

#define FLOAT_OPERATOR(op)                                                          \
  AVAT3R_INLINE Floats operator op(Floats a, Floats b) {                            \
    Floats r;                                                                       \
    EACH_PART r.part[i] = a.part[i] op b.part[i];                                   \
    return r;                                                                       \
  }                                                                                 \
  AVAT3R_INLINE Floats operator op(Floats a, float b) { return a op broadcast(b); } \
  AVAT3R_INLINE Floats operator op(float a, Floats b) { return broadcast(a) op b; }
FLOAT_OPERATOR(+)
FLOAT_OPERATOR(-)
FLOAT_OPERATOR(*)
FLOAT_OPERATOR(/)
#undef FLOAT_OPERATOR
AVAT3R_INLINE Floats& operator+=(Floats& a, Floats b) { return a = a + b; }

#define INT_OPERATOR(op)                           \
  AVAT3R_INLINE Ints operator op(Ints a, Ints b) { \
    Ints r;                                        \
    EACH_PART r.part[i] = a.part[i] op b.part[i];  \
    return r;                                      \
  }                                                \
  AVAT3R_INLINE Ints operator op(Ints a, int32_t b) { return a op broadcast_int(b); }
INT_OPERATOR(+)
INT_OPERATOR(-)
INT_OPERATOR(&)
INT_OPERATOR(|)
#undef INT_OPERATOR
AVAT3R_INLINE Ints shift_left(Ints a, int bits) {
  EACH_PART a.part[i] = a.part[i] << bits;
  return a;
}
AVAT3R_INLINE Ints shift_right(Ints a, int bits) {  // keeps the sign
  EACH_PART a.part[i] = a.part[i] >> bits;
  return a;
}
AVAT3R_INLINE Floats as_floats(Ints a) {
  Floats r;
  EACH_PART r.part[i] = (FloatPart)a.part[i];
  return r;
}
AVAT3R_INLINE Ints as_ints(Floats a) {
  Ints r;
  EACH_PART r.part[i] = (IntPart)a.part[i];
  return r;
}
AVAT3R_INLINE Floats to_floats(Ints a) {
  Floats r;
  EACH_PART r.part[i] = __builtin_convertvector(a.part[i], FloatPart);
  return r;
}
AVAT3R_INLINE Ints to_ints(Floats a) {  // towards zero
  Ints r;
  EACH_PART r.part[i] = __builtin_convertvector(a.part[i], IntPart);
  return r;
}

#if defined(__AVX512F__)

struct Mask {
  __mmask16 bits;
};
AVAT3R_INLINE Mask operator&(Mask a, Mask b) { return {(__mmask16)(a.bits & b.bits)}; }
AVAT3R_INLINE bool any(Mask a) { return a.bits != 0; }
AVAT3R_INLINE uint32_t lane_bits(Mask a) { return a.bits; }  // bit i: lane i
#define COMPARISON(name, predicate)                                               \
  AVAT3R_INLINE Mask name(Floats a, Floats b) {                                   \
    return {_mm512_cmp_ps_mask((__m512)a.part[0], (__m512)b.part[0], predicate)}; \
  }
COMPARISON(at_least, _CMP_GE_OQ)
COMPARISON(at_most, _CMP_LE_OQ)
COMPARISON(above, _CMP_GT_OQ)
#undef COMPARISON
AVAT3R_INLINE Mask at_least(Ints a, Ints b) {
  return {_mm512_cmp_epi32_mask((__m512i)a.part[0], (__m512i)b.part[0], _MM_CMPINT_NLT)};
}
AVAT3R_INLINE Floats zero_unless(Mask m, Floats a) {
  return {{(FloatPart)_mm512_maskz_mov_ps(m.bits, (__m512)a.part[0])}};
}
AVAT3R_INLINE Floats select(Mask m, Floats a, Floats b) {
  return {{(FloatPart)_mm512_mask_mov_ps((__m512)b.part[0], m.bits, (__m512)a.part[0])}};
}
AVAT3R_INLINE Ints select(Mask m, Ints a, Ints b) {
  return {{(IntPart)_mm512_mask_mov_epi32((__m512i)b.part[0], m.bits, (__m512i)a.part[0])}};
}
AVAT3R_INLINE Floats smaller(Floats a, Floats b) {
  return {{(FloatPart)_mm512_min_ps((__m512)a.part[0], (__m512)b.part[0])}};
}
AVAT3R_INLINE Floats larger(Floats a, Floats b) {
  return {{(FloatPart)_mm512_max_ps((__m512)a.part[0], (__m512)b.part[0])}};
}
AVAT3R_INLINE Floats square_root(Floats a) {
  return {{(FloatPart)_mm512_sqrt_ps((__m512)a.part[0])}};
}
AVAT3R_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {  // a * b + c
  return {{(FloatPart)_mm512_fmadd_ps((__m512)a.part[0], (__m512)b.part[0], (__m512)c.part[0])}};
}
AVAT3R_INLINE Floats multiply_subtract(Floats a, Floats b, Floats c) {  // a * b - c
  return {{(FloatPart)_mm512_fmsub_ps((__m512)a.part[0], (__m512)b.part[0], (__m512)c.part[0])}};
}
AVAT3R_INLINE Floats negative_multiply_add(Floats a, Floats b, Floats c) {  // c - a * b
  return {{(FloatPart)_mm512_fnmadd_ps((__m512)a.part[0], (__m512)b.part[0], (__m512)c.part[0])}};
}
AVAT3R_INLINE float sum(Floats a) { return _mm512_reduce_add_ps((__m512)a.part[0]); }
AVAT3R_INLINE void store(int32_t* aligned, Mask m) {  // -1 or 0 a lane
  store(aligned, Ints{{(IntPart)_mm512_movm_epi32(m.bits)}});
}

#else  // masks are lanes of all ones or all zeros

struct alignas(64) Mask {
  IntPart part[kParts];
};
AVAT3R_INLINE Mask operator&(Mask a, Mask b) {
  EACH_PART a.part[i] &= b.part[i];
  return a;
}
AVAT3R_INLINE bool any(Mask a) {
  IntPart united = a.part[0];
  for (int i = 1; i < kParts; i++) united |= a.part[i];
#if defined(__AVX2__)
  return _mm256_movemask_ps((__m256)united) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_ps((__m128)united) != 0;
#else
  return (united[0] | united[1] | united[2] | united[3]) != 0;
#endif
}
AVAT3R_INLINE uint32_t lane_bits(Mask a) {  // bit i: lane i
  uint32_t bits = 0;
  EACH_PART {
#if defined(__AVX2__)
    bits |= (uint32_t)_mm256_movemask_ps((__m256)a.part[i]) << (i * kPartLanes);
#elif defined(__SSE2__)
    bits |= (uint32_t)_mm_movemask_ps((__m128)a.part[i]) << (i * kPartLanes);
#else
    for (int j = 0; j < kPartLanes; j++) bits |= (a.part[i][j] & 1u) << (i * kPartLanes + j);
#endif
  }
  return bits;
}
#define COMPARISON(name, op, Vector)                         \
  AVAT3R_INLINE Mask name(Vector a, Vector b) {              \
    Mask r;                                                  \
    EACH_PART r.part[i] = (IntPart)(a.part[i] op b.part[i]); \
    return r;                                                \
  }
COMPARISON(at_least, >=, Floats)
COMPARISON(at_most, <=, Floats)
COMPARISON(above, >, Floats)
COMPARISON(at_least, >=, Ints)
#undef COMPARISON
AVAT3R_INLINE Floats zero_unless(Mask m, Floats a) {
  EACH_PART a.part[i] = (FloatPart)(m.part[i] & (IntPart)a.part[i]);
  return a;
}
AVAT3R_INLINE Ints select(Mask m, Ints a, Ints b) {
  EACH_PART a.part[i] = (m.part[i] & a.part[i]) | (~m.part[i] & b.part[i]);
  return a;
}
AVAT3R_INLINE Floats select(Mask m, Floats a, Floats b) {
#if defined(__AVX2__)
  EACH_PART a.part[i] =
      (FloatPart)_mm256_blendv_ps((__m256)b.part[i], (__m256)a.part[i], (__m256)m.part[i]);
  return a;
#else
  return as_floats(select(m, as_ints(a), as_ints(b)));
#endif
}
// Of a NaN and a number, both give `b`, as the instructions do.
AVAT3R_INLINE Floats smaller(Floats a, Floats b) {
#if defined(__AVX2__)
  EACH_PART a.part[i] = (FloatPart)_mm256_min_ps((__m256)a.part[i], (__m256)b.part[i]);
#elif defined(__SSE2__)
  EACH_PART a.part[i] = (FloatPart)_mm_min_ps((__m128)a.part[i], (__m128)b.part[i]);
#else
  EACH_PART a.part[i] = a.part[i] < b.part[i] ? a.part[i] : b.part[i];
#endif
  return a;
}
AVAT3R_INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX2__)
  EACH_PART a.part[i] = (FloatPart)_mm256_max_ps((__m256)a.part[i], (__m256)b.part[i]);
#elif defined(__SSE2__)
  EACH_PART a.part[i] = (FloatPart)_mm_max_ps((__m128)a.part[i], (__m128)b.part[i]);
#else
  EACH_PART a.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
#endif
  return a;
}
AVAT3R_INLINE Floats square_root(Floats a) {
#if defined(__AVX2__)
  EACH_PART a.part[i] = (FloatPart)_mm256_sqrt_ps((__m256)a.part[i]);
#elif defined(__SSE2__)
  EACH_PART a.part[i] = (FloatPart)_mm_sqrt_ps((__m128)a.part[i]);
#else
  EACH_PART for (int j = 0; j < kPartLanes; j++) a.part[i][j] = __builtin_sqrtf(a.part[i][j]);
#endif
  return a;
}
AVAT3R_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {  // a * b + c
#if defined(__AVX2__)
  EACH_PART a.part[i] =
      (FloatPart)_mm256_fmadd_ps((__m256)a.part[i], (__m256)b.part[i], (__m256)c.part[i]);
  return a;
#else
  return a * b + c;
#endif
}
AVAT3R_INLINE Floats multiply_subtract(Floats a, Floats b, Floats c) {  // a * b - c
#if defined(__AVX2__)
  EACH_PART a.part[i] =
      (FloatPart)_mm256_fmsub_ps((__m256)a.part[i], (__m256)b.part[i], (__m256)c.part[i]);
  return a;
#else
  return a * b - c;
#endif
}
AVAT3R_INLINE Floats negative_multiply_add(Floats a, Floats b, Floats c) {  // c - a * b
#if defined(__AVX2__)
  EACH_PART a.part[i] =
      (FloatPart)_mm256_fnmadd_ps((__m256)a.part[i], (__m256)b.part[i], (__m256)c.part[i]);
  return a;
#else
  return c - a * b;
#endif
}
AVAT3R_INLINE float sum(Floats a) {
  FloatPart s = a.part[0];
  for (int i = 1; i < kParts; i++) s += a.part[i];
  float total = 0;
  for (int j = 0; j < kPartLanes; j++) total += s[j];
  return total;
}
AVAT3R_INLINE void store(int32_t* aligned, Mask m) {  // -1 or 0 a lane
  Ints r;
  EACH_PART r.part[i] = m.part[i];
  store(aligned, r);
}

#endif

// 2^p of kCount vectors side by side, relative error below 3e-7, for p in [-126, 127]; anything
// outside. One alone leaves the arithmetic units idle for most of its latency.
template <int kCount>
AVAT3R_INLINE void exp2(const Floats (&p)[kCount], Floats (&r)[kCount]) {
#if defined(__AVX512F__)
  // Fraction and 2^floor(p) are single instructions here; minimax polynomial of 2^f on [0, 1].
  constexpr float kFactors[] = {0.00898933969f, 0.05582631752f, 0.24015361071f, 0.69315308332f,
                                0.99999994040f};
  Floats f[kCount];
  for (int g = 0; g < kCount; g++) {  // p - floor(p)
    f[g] = {{(FloatPart)_mm512_reduce_ps((__m512)p[g].part[0], 9)}};
    r[g] = broadcast(0.00187757681f);
  }
  for (float factor : kFactors) {
    for (int g = 0; g < kCount; g++) r[g] = multiply_add(r[g], f[g], broadcast(factor));
  }
  for (int g = 0; g < kCount; g++) {
    r[g] = {{(FloatPart)_mm512_scalef_ps((__m512)r[g].part[0], (__m512)p[g].part[0])}};
  }
#else
  // Adding 1.5 * 2^23 leaves round(p) in the low bits of the mantissa; minimax on [-0.5, 0.5].
  constexpr float kFactors[] = {0.0096755410f, 0.0555071309f, 0.2402211875f, 0.6931469440f,
                                1.0000001192f};
  const Floats magic = broadcast(12582912.f);
  Floats rounded[kCount], f[kCount];
  for (int g = 0; g < kCount; g++) {
    rounded[g] = p[g] + magic;
    f[g] = p[g] - (rounded[g] - magic);
    r[g] = broadcast(0.0013276472f);
  }
  for (float factor : kFactors) {
    for (int g = 0; g < kCount; g++) r[g] = multiply_add(r[g], f[g], broadcast(factor));
  }
  for (int g = 0; g < kCount; g++) {
    r[g] = as_floats(as_ints(r[g]) + shift_left(as_ints(rounded[g]), 23));
  }
#endif
}

AVAT3R_INLINE Floats exp2(Floats p) {
  const Floats one[1] = {p};
  Floats result[1];
  exp2(one, result);
  return result[0];
}

// log2(x), absolute error below 2e-7 for normal x > 0; minimax polynomial of log2(1 + f) / f.
AVAT3R_INLINE Floats log2(Floats x) {
  const Ints bits = as_ints(x);
  const Ints exponent =
      shift_right(bits - 0x3f3504f3, 23);  // of x / sqrt(1/2), so that f is centred
  const Floats f = as_floats(bits - shift_left(exponent, 23)) - 1.f;
  Floats r = broadcast(0.11922676f);
  r = multiply_add(r, f, broadcast(-0.20819066f));
  r = multiply_add(r, f, broadcast(0.2187425f));
  r = multiply_add(r, f, broadcast(-0.23890369f));
  r = multiply_add(r, f, broadcast(0.28754592f));
  r = multiply_add(r, f, broadcast(-0.36070013f));
  r = multiply_add(r, f, broadcast(0.4809263f));
  r = multiply_add(r, f, broadcast(-0.72134745f));
  r = multiply_add(r, f, broadcast(1.4426948f));
  return multiply_add(r, f, to_floats(exponent));
}
