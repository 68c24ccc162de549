// Numbers in vectors: arithmetic, exp, tanh, erf and transposed squares.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num() { return 0; }
static int omp_get_num_threads() { return 1; }
#endif
#ifdef __SSE__
#include <immintrin.h>
#endif

namespace {

// floats in a vector register
#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
constexpr long LINE = 16;  // floats in a cache line

typedef float Vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Int __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec splat(float x) { return x - Vec{}; }
inline Vec choose(Int mask, Vec a, Vec b) {
  return (Vec)((mask & (Int)a) | (~mask & (Int)b));
}
inline Vec larger(Vec a, Vec b) { return choose(a > b, a, b); }
// Return a * b + c, rounded once where the CPU can. GCC alone would decide that for each loop, so
// that sums would depend on how the threads share a layer.
inline Vec fused(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
inline Vec root(Vec v) {
  Vec r;
  for (int i = 0; i < WIDTH; i++) r[i] = __builtin_sqrtf(v[i]);
  return r;
}

// exp and tanh after Cephes (S. Moshier); NaN stays NaN.
inline Vec exponential(Vec x) {
  x = choose(x > 88.f, splat(88.f), x);
  x = choose(x < -87.f, splat(-87.f), x);
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to whole numbers
  const Vec n = (x * 1.44269504088896341f + magic) - magic;
  const Vec r = x - n * 0.693359375f - n * -2.12194440e-4f;
  Vec y = splat(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f,
                  5.0000001201e-1f})
    y = y * r + c;
  y = y * r * r + r + 1.f;
  return y * (Vec)((__builtin_convertvector(n, Int) + 127) << 23);
}

inline Vec hyperbolic_tangent(Vec x) {
  const Vec size = choose(x < 0.f, -x, x), z = x * x;
  Vec small = splat(-5.70498872745e-3f);
  for (float c : {2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f, -3.33332819422e-1f})
    small = small * z + c;
  small = small * z * x + x;
  const Vec large = 1.f - 2.f / (exponential(size + size) + 1.f);
  return choose(size < 0.625f, small, choose(x < 0.f, -large, large));
}

// The error function, a rational function from Eigen (B. Steiner, E. Wang), within 2e-7.
inline Vec error_function(Vec x) {
  x = choose(x > 4.f, splat(4.f), choose(x < -4.f, splat(-4.f), x));
  const Vec z = x * x;
  Vec top = splat(-2.72614225801306e-10f), under = splat(-1.45660718464996e-05f);
  for (float c : {2.77068142495902e-08f, -2.10102402082508e-06f, -5.69250639462346e-05f,
                  -7.34990630326855e-04f, -2.95459980854025e-03f, -1.60960333262415e-02f})
    top = top * z + c;
  for (float c : {-2.13374055278905e-04f, -1.68282697438203e-03f, -7.37332916720468e-03f,
                  -1.42647390514189e-02f})
    under = under * z + c;
  return x * top / under;
}

// The sum of a vector's numbers.
inline double total(Vec v) {
  double sum = 0;
  for (int i = 0; i < WIDTH; i++) sum += v[i];
  return sum;
}

// The first `real` numbers of a vector, and 0 for the others.
inline Vec first(Vec v, long real) {
  if (real >= WIDTH) return v;
  for (long i = std::max(real, 0L); i < WIDTH; i++) v[i] = 0;
  return v;
}

// Return the numbers at these places in a followed by b.
template <int... PLACES>
inline Vec pick(Vec a, Vec b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, PLACES...);
#else
  return __builtin_shuffle(a, b, Int{PLACES...});
#endif
}

template <int S, int... J>  // swaps bit S of the column with bit S of the row
inline void exchange(Vec* rows, std::integer_sequence<int, J...>) {
#pragma GCC unroll 16
  for (int i = 0; i < WIDTH; i++)
    if (!(i & S)) {
      const Vec a = rows[i], b = rows[i + S];
      rows[i] = pick<(J & S ? WIDTH + J - S : J)...>(a, b);
      rows[i + S] = pick<(J & S ? WIDTH + J : J + S)...>(a, b);
    }
}

// Set to[j][i] = from[i][j] in a square of WIDTH; only the first `count` rows are written.
inline void transpose(const float* from, long from_row, float* to, long to_row, long count) {
  Vec rows[WIDTH];
#pragma GCC unroll 16
  for (int i = 0; i < WIDTH; i++) rows[i] = load(from + i * from_row);
  const std::make_integer_sequence<int, WIDTH> places;
  exchange<1>(rows, places);
  exchange<2>(rows, places);
  if constexpr (WIDTH > 4) exchange<4>(rows, places);
  if constexpr (WIDTH > 8) exchange<8>(rows, places);
  for (int i = 0; i < count; i++) store(to + i * to_row, rows[i]);
}

long up(long n, long unit) { return (n + unit - 1) / unit * unit; }

}  // namespace
