// Steps with the CPU's vectors: all sums have the form  sums[row] += scalar * vector.
//
// The examples of a batch lie along the vectors, and for the weights' gradient the inputs, so that
// the weights are read in place, never packed. The weights' gradient is never stored: each tile of
// it goes straight into the optimizer's update.
//
// Layouts of a layer with n units, for a batch padded to whole blocks of `columns` examples:
//   by units     [block of examples][n][columns]            outputs and gradients
//   by examples  [block of BLOCK units][examples][width]    outputs, for the next layer's weights

#pragma once

#include "mlp.hpp"

namespace {

// SUMS registers hold the sums of a tile: some rows by at most WIDE vectors
#if defined(__AVX512F__)
constexpr int SUMS = 24, WIDE = 4;
#elif defined(__AVX__)
constexpr int SUMS = 12, WIDE = 2;
#else
constexpr int SUMS = 24, WIDE = 4;
#endif
constexpr int FEW = 4;  // rows of a smaller tile
constexpr long BLOCK = WIDE * WIDTH;
constexpr long DEPTH = 128;  // terms summed in one pass, whose BLOCK floats each stay in the L1 cache

// sums[r][:] += sum over d of scalars[r][d] * vectors[d][:], for R rows of V vectors.
// row, step: distances between the scalars. ahead: null, or an address to prefetch at each d.
template <int R, int V>
__attribute__((noinline)) void multiply(float* sums, const float* scalars, long row, long step,
                                        const float* vectors, long depth,
                                        const float* const* ahead) {
  Vec s[R][V];
#pragma GCC unroll 24
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) s[r][v] = load(sums + (r * V + v) * WIDTH);
  for (long d = 0; d < depth; d++) {
    Vec x[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) x[v] = load(vectors + (d * V + v) * WIDTH);
    if (ahead) __builtin_prefetch(ahead[d]);
#pragma GCC unroll 24
    for (int r = 0; r < R; r++) {
      const Vec w = splat(scalars[r * row + d * step]);
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) s[r][v] = fused(w, x[v], s[r][v]);
    }
  }
#pragma GCC unroll 24
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) store(sums + (r * V + v) * WIDTH, s[r][v]);
}

typedef void Multiply(float*, const float*, long, long, const float*, long, const float* const*);
Multiply* const FULL[] = {multiply<SUMS, 1>, multiply<SUMS / 2, 2>,
                          multiply<SUMS / std::min(3, WIDE), std::min(3, WIDE)>,
                          multiply<SUMS / WIDE, WIDE>};
Multiply* const SMALL[] = {multiply<FEW, 1>, multiply<FEW, 2>, multiply<FEW, std::min(3, WIDE)>,
                           multiply<FEW, WIDE>};
Multiply* const SINGLE[] = {multiply<1, 1>, multiply<1, 2>, multiply<1, std::min(3, WIDE)>,
                            multiply<1, WIDE>};

// The rows from `row` on that are multiplied together, and the function. vectors: in each row.
struct Tile {
  long rows;
  Multiply* multiply;
  Tile(long row, long end, int vectors) {
    const long full = SUMS / vectors, left = end - row;
    rows = left >= full ? full : left >= FEW ? FEW : 1;
    multiply = (rows == full ? FULL : rows == FEW ? SMALL : SINGLE)[vectors - 1];
  }
};

// Return the floats in a row of a unit block, in the layout by examples.
long width(long n, long from) { return std::min(BLOCK, up(n - from, WIDTH)); }

// The layout of a batch in scratch memory.
struct Plan {
  const Job& job;
  int vectors;   // in a block of examples
  long columns;  // examples in a block
  long padded;   // examples in all blocks
  float *units[LAYERS + 1], *examples[LAYERS], *gradients[LAYERS];
  long floats;

  Plan(const Job& job, float* scratch) : job(job) {
    const long needed = up(job.batch, WIDTH) / WIDTH, blocks = up(needed, WIDE) / WIDE;
    vectors = up(needed, blocks) / blocks;
    columns = vectors * WIDTH;
    padded = blocks * columns;
    float* next = scratch;
    auto take = [&](float*& place, long n) { place = next, next += up(n, WIDTH) * padded; };
    for (long l = 0; l <= job.count; l++) {
      const long n = l < job.count ? job.layers[l].in : job.layers[l - 1].out;
      take(units[l], n);
      if (l < job.count) take(examples[l], n);
      if (l > 0) take(gradients[l - 1], n);
    }
    floats = next - scratch;
  }
};

// One thread's part of a step. Between two calls all threads wait for each other.
class Pass {
 public:
  explicit Pass(const Plan& plan) : plan(plan), job(plan.job) {}

  void gather(long step) {
    const long n = job.layers[0].in;
    const int64_t* batch = job.chosen(step);
    const Range own(n, BLOCK);
    for (long m = 0; m < plan.padded; m++)
      for (long k = own.from; k < own.to; k += BLOCK) {
        const long w = width(n, k), real = std::min(w, n - k);
        float* to = plan.examples[0] + k * plan.padded + m * w;
        if (m >= job.batch) std::memset(to, 0, w * sizeof(float));
        else std::memcpy(to, job.X + batch[m] * n + k, real * sizeof(float));
      }
    for (long k = own.from; k < own.to; k += BLOCK)
      for (long m = 0; m < plan.padded; m += WIDTH)
        for (long j = k; j < std::min(k + BLOCK, n); j += WIDTH) {
          const long w = width(n, k), b = m / plan.columns;
          transpose(plan.examples[0] + k * plan.padded + m * w + j - k, w,
                    plan.units[0] + (b * n + j) * plan.columns + m % plan.columns, plan.columns,
                    std::min<long>(WIDTH, n - j));
        }
  }

  void forward(long l) {
    const Layer& layer = job.layers[l];
    const long n = layer.out, columns = plan.columns;
    const Range own(n, SUMS / plan.vectors);
    for (long d = 0; d < layer.in; d += DEPTH) {
      const long depth = std::min(DEPTH, layer.in - d);
      for (long r = own.from; r < own.to;) {
        const Tile tile(r, own.to, plan.vectors);
        for (long m = 0; m < plan.padded; m += columns) {
          float* sums = plan.units[l + 1] + m * n + r * columns;
          if (d == 0)
            for (long i = 0; i < tile.rows * columns; i += WIDTH)
              store(sums + i, splat(layer.bias.values ? layer.bias.values[r + i / columns] : 0.f));
          tile.multiply(sums, layer.weight.values + r * layer.in + d, layer.in, 1,
                        plan.units[l] + m * layer.in + d * columns, depth, nullptr);
          if (d + depth == layer.in && layer.activation)
            for (long i = 0; i < tile.rows * columns; i += WIDTH)
              store(sums + i, activate(layer.activation, layer.slope, load(sums + i)));
        }
        r += tile.rows;
      }
    }
    if (l + 1 == job.count) return;
    for (long j = own.from; j < own.to;) {  // copies the outputs into the layout by examples
      const long k = j / BLOCK * BLOCK, w = width(n, k);
      const long real = std::min(WIDTH - j % WIDTH, own.to - j);
      for (long m = 0; m < plan.padded; m += WIDTH) {
        const float* from = plan.units[l + 1] + (m / columns * n + j) * columns + m % columns;
        float* to = plan.examples[l + 1] + k * plan.padded + m * w + j - k;
        if (real == WIDTH) transpose(from, columns, to, w, WIDTH);
        else
          for (long c = 0; c < WIDTH; c++)
            for (long i = 0; i < real; i++) to[c * w + i] = from[i * columns + c];
      }
      j += real;
    }
  }

  void loss(long step, double* sums) {
    const long classes = job.layers[job.count - 1].out, columns = plan.columns;
    const Range own(plan.padded, WIDTH);
    for (long m = own.from; m < own.to; m += WIDTH) {
      const long at = m / columns * classes * columns + m % columns;
      sums[m / WIDTH] = cross_entropy(job, step, m, plan.units[job.count] + at,
                                      plan.gradients[job.count - 1] + at, columns);
    }
  }

  // Compute the gradient of layer l - 1's outputs before their activation.
  void backward(long l) {
    const Layer &layer = job.layers[l], &before = job.layers[l - 1];
    const long n = layer.in, columns = plan.columns;
    const Range own(n, SUMS / plan.vectors);
    const float* ahead[DEPTH];
    for (long d = 0; d < layer.out; d += DEPTH) {
      const long depth = std::min(DEPTH, layer.out - d);
      for (long r = own.from; r < own.to;) {
        const Tile tile(r, own.to, plan.vectors);
        // a few weights of each row are read, a pattern that the CPU does not prefetch
        for (long i = 0; i < depth; i++)
          ahead[i] = layer.weight.values + (d + i) * n + r + 2 * LINE;
        for (long m = 0; m < plan.padded; m += columns) {
          float* sums = plan.gradients[l - 1] + m * n + r * columns;
          if (d == 0) std::memset(sums, 0, tile.rows * columns * sizeof(float));
          tile.multiply(sums, layer.weight.values + d * n + r, 1, n,
                        plan.gradients[l] + m * layer.out + d * columns, depth,
                        m == 0 ? ahead : nullptr);
          const float* y = plan.units[l] + m * n + r * columns;
          if (d + depth == layer.out && before.activation)
            for (long i = 0; i < tile.rows * columns; i += WIDTH)
              store(sums + i,
                    load(sums + i) * derivative(before.activation, before.slope, load(y + i)));
        }
        r += tile.rows;
      }
    }
  }

  template <class Rule>
  void update(const Numbers numbers) {
    for (long l = job.count - 1; l >= 0; l--) update<Rule>(l, numbers[l][0], numbers[l][1]);
  }

 private:
  template <class Rule>
  void update(long l, const float* of_weight, const float* of_bias) {
    const Layer& layer = job.layers[l];
    const long n = layer.in, columns = plan.columns;
    const Range own(layer.out, SUMS / plan.vectors);
    const float* ahead[EXAMPLES + BLOCK];
    auto look_ahead = [&](long row, long rows, long k) {  // prefetches for inputs k on
      long found = 0;
      for (long r = row; r < row + rows; r++)
        for (long j = k; j < std::min(k + BLOCK, n) && found + 4 <= job.batch; j += LINE) {
          ahead[found++] = layer.weight.values + r * n + j;
          for (const float* state : layer.weight.state)
            if (state) ahead[found++] = state + r * n + j;
        }
      std::fill(ahead + found, ahead + job.batch, layer.weight.values + row * n);
    };
    auto strip = [&](long k, long from, long to) {  // updates these rows, inputs k on
      const long w = width(n, k);
      for (long row = from; row < to;) {
        const Tile tile(row, to, w / WIDTH);
        alignas(64) float g[SUMS * WIDTH] = {};
        look_ahead(row, tile.rows, k + w);
        for (long m = 0; m < plan.padded; m += columns)
          tile.multiply(g, plan.gradients[l] + m * layer.out + row * columns, columns, 1,
                        plan.examples[l] + k * plan.padded + m * w,
                        std::min(columns, job.batch - m), ahead + m);
        for (long i = 0; i < tile.rows; i++)
          ::update<Rule>(layer.weight, (row + i) * n + k, g + i * w, std::min(w, n - k), of_weight);
        row += tile.rows;
      }
    };
    const long whole = n / BLOCK * BLOCK;
    for (long r = own.from; r < own.to; r += SUMS / WIDE)
      for (long k = 0; k < whole; k += BLOCK) strip(k, r, std::min<long>(own.to, r + SUMS / WIDE));
    if (whole < n) strip(whole, own.from, own.to);  // a narrow strip takes more rows together
    if (!layer.bias.values) return;
    for (long r = own.from; r < own.to; r++) {
      Vec sum{};
      for (long m = 0; m < plan.padded; m += WIDTH)
        sum += load(plan.gradients[l] + (m / columns * layer.out + r) * columns + m % columns);
      float g = 0;
      for (int i = 0; i < WIDTH; i++) g += sum[i];
      ::update<Rule>(layer.bias, r, &g, 1, of_bias);
    }
  }

  const Plan& plan;
  const Job& job;
};

}  // namespace
