// Products of float32 matrices by tiles of the CPU (Intel's AMX), which multiply bfloat16 numbers
// and sum in float32.
//
// A float32 number is the sum of three bfloat16 numbers, which have 8 of its 24 digits each. Of the
// nine products of two such sums the six largest are taken. What the other three leave out is of
// the size of what float32 rounds off a product: G. Henry, P. T. P. Tang, A. Heinecke, "Leveraging
// the bfloat16 artificial intelligence datatype for higher-precision computations", ARITH 2019.
// Numbers below 1e-30 lose digits: tiles take a part below float32's normal numbers for 0.

#pragma once

#include "mlp.hpp"

// GCC and clang name it differently
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__AVX512F__) && defined(__linux__)
#define TILES

#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr long SIDE = 16;   // rows and columns of a tile of sums; WIDTH
constexpr long CHUNK = 32;  // what one instruction sums over; also the side of a block
constexpr long PART = SIDE * CHUNK, TILE = 3 * PART;
constexpr long CELLS = CHUNK * CHUNK;  // of a block
constexpr long PANEL = 1024;           // summed at once: 32 rows of it stay in the second cache
constexpr long GROUP = 128;            // examples at once, likewise
constexpr int SLOTS = 6;               // for other work, while a chunk is multiplied

typedef uint16_t Part;  // the upper half of a float

// A factor of a product: tiles of SIDE rows (of the first factor) or columns (of the second) and
// CHUNK of what is summed over, of three parts each. Number i of a chunk lies beside i + SIDE.
struct Factor {
  Part* at;
  long chunks;

  Factor() = default;
  Factor(float* at, long depth) : at((Part*)at), chunks(up(depth, CHUNK) / CHUNK) {}
  static long floats(long sides, long depth) {
    return up(sides, CHUNK) / SIDE * up(depth, CHUNK) / CHUNK * TILE / 2;
  }
  Part* tile(long side, long depth) const {
    return at + (side / SIDE * chunks + depth / CHUNK) * TILE;
  }
  long stride() const { return chunks * TILE; }  // from a tile to that of the next SIDE
};

// GCC does not know that what loads a tile reads memory: all stores must come before.
inline void settle(const void* at) { asm volatile("" ::"r"(at) : "memory"); }

// Whether the system lets this process use tiles.
inline bool tiles_allowed() {
  const long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool answer = syscall(SYS_arch_prctl, request, tile_data) == 0;
  return answer;
}

// What a thread does before its first product; _tile_release() is its last.
inline void begin_tiles() {
  struct alignas(64) {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } config = {};
  config.palette = 1;
  for (int i = 0; i < 8; i++) config.bytes[i] = 2 * CHUNK, config.rows[i] = SIDE;
  settle(&config);
  _tile_loadconfig(&config);
}

// Of the SIDE numbers in a vector, the first `count`.
inline __mmask16 first(long count) {
  return count >= SIDE ? 0xffff : count <= 0 ? 0 : (1 << count) - 1;
}

// Three parts each of the pairs (a, b). Of what is infinite (above 3.39e38) or no number one is no
// number.
inline void split(const float* a, const float* b, Part* to) {
  typedef uint32_t Bits __attribute__((vector_size(4 * SIDE), may_alias));
  Vec x = load(a), y = load(b);
  for (int part = 0; part < 3; part++) {
    Bits high = (Bits)x, low = (Bits)y;
    if (part < 2) high = (high + 0x8000) & 0xffff0000, low = (low + 0x8000) & 0xffff0000;
    *(Bits*)(to + part * PART) = high >> 16 | low;
    x -= (Vec)high, y -= (Vec)low;  // exact
  }
}

// The rows of a block as sides of a factor, its columns as the depth.
inline void pack_rows(const float* block, const Factor& to, long side, long depth) {
  for (long i = 0; i < CHUNK; i++)
    split(block + i * CHUNK, block + i * CHUNK + SIDE,
          to.tile(side + i, depth) + i % SIDE * CHUNK);
}

// Its columns as sides, its rows as the depth.
inline void pack_columns(const float* block, const Factor& to, long side, long depth) {
  for (long h = 0; h < CHUNK; h += SIDE)
    for (long i = 0; i < SIDE; i++)
      split(block + i * CHUNK + h, block + (i + SIDE) * CHUNK + h,
            to.tile(side + h, depth) + i * CHUNK);
}

inline void turn(const float* block, float* to) {
  for (long i = 0; i < CHUNK; i += SIDE)
    for (long j = 0; j < CHUNK; j += SIDE)
      transpose(block + i * CHUNK + j, CHUNK, to + j * CHUNK + i, CHUNK, SIDE);
}

// Blocks of weights, one after another, as the first factor's rows or the second's columns: a
// piece, which is 1/CHUNK of a block, at each call.
template <bool COLUMNS>
struct Packing {
  const float* at;  // the block
  long next;        // from a block to the next
  Part* to;
  long left;  // pieces
  long i = 0;

  void operator()() {
    if (left <= 0) return;
    left--;
    const float* from = at + (COLUMNS ? i % SIDE * CHUNK + i / SIDE * SIDE : i * CHUNK);
    __builtin_prefetch(at + next + i * CHUNK);
    __builtin_prefetch(at + next + i * CHUNK + LINE);
    split(from, from + (COLUMNS ? SIDE * CHUNK : SIDE),
          to + i / SIDE * (PANEL / CHUNK) * TILE + i % SIDE * CHUNK);
    if (++i == CHUNK) i = 0, at += next, to += TILE;
  }
};

// block (+)= sum over chunks of two tiles of a, and two of b. meanwhile: called in each slot.
template <class Meanwhile>
inline void multiply(float* block, const Part* a, long row_a, const Part* b, long row_b,
                     long chunks, bool fresh, Meanwhile meanwhile) {
  const long bytes = CHUNK * sizeof(float);
  float* below = block + SIDE * CHUNK;
  settle(a);
  settle(b);
  if (fresh) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, block, bytes);
    _tile_loadd(1, block + SIDE, bytes);
    _tile_loadd(2, below, bytes);
    _tile_loadd(3, below + SIDE, bytes);
  }
// the numbers of tiles must be written out
#define A(part)                      \
  _tile_loadd(4, a + part * PART, 64); \
  _tile_loadd(5, a + row_a + part * PART, 64);
#define B(part)                      \
  _tile_loadd(6, b + part * PART, 64); \
  _tile_loadd(7, b + row_b + part * PART, 64);
#define PRODUCTS           \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7); \
  meanwhile();
  for (long d = 0; d < chunks; d++, a += TILE, b += TILE) {
    A(2) B(0) PRODUCTS
    A(0) PRODUCTS
    A(1) PRODUCTS
    B(1) PRODUCTS
    A(0) PRODUCTS
    B(2) PRODUCTS
  }
#undef A
#undef B
#undef PRODUCTS
  _tile_stored(0, block, bytes);
  _tile_stored(1, block + SIDE, bytes);
  _tile_stored(2, below, bytes);
  _tile_stored(3, below + SIDE, bytes);
}

}  // namespace
#endif
