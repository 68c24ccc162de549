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

#include "job.hpp"

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
  Vec s[R][V] = {};
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
    for (int v = 0; v < V; v++) {
      float* sum = sums + (r * V + v) * WIDTH;
      store(sum, load(sum) + s[r][v]);
    }
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

struct Range {
  long from, to;
  // This thread's share of `count`, in whole tiles of `unit`.
  Range(long count, long unit) {
    const long tiles = up(count, unit) / unit, t = omp_get_thread_num(), T = omp_get_num_threads();
    from = std::min(count, tiles * t / T * unit);
    to = std::min(count, tiles * (t + 1) / T * unit);
  }
};

// The layout of a batch in scratch memory. Arrays by units:
//   units[l]       what layer l multiplies, after its dropout; units[count]: the model's outputs
//   keep[l]        for dropout after the first layer: the scale of kept inputs, and 0
//   linear[l]      the products of layer l
//   entered[l]     what the activation takes: `linear`, or its batch norm
//   active[l]      what the activation gives, in the place of `entered` where that is not needed
//   normed[l]      `active`, or its batch norm
//   gradients[l]   of `normed` at first, and of `linear` after `Pass::to_linear`
struct Plan {
  const Job& job;
  int vectors;   // in a block of examples
  long columns;  // examples in a block
  long padded;   // examples in all blocks
  float *units[LAYERS + 1], *examples[LAYERS], *gradients[LAYERS], *keep[LAYERS];
  float *linear[LAYERS], *entered[LAYERS], *active[LAYERS], *normed[LAYERS];
  float* norms[LAYERS];  // of each unit: mean, 1 / deviation, gradients of weight and bias
  long floats;

  Plan(const Job& job, float* scratch) : job(job) {
    const long needed = up(job.batch, WIDTH) / WIDTH, blocks = up(needed, WIDE) / WIDE;
    vectors = up(needed, blocks) / blocks;
    columns = vectors * WIDTH;
    padded = blocks * columns;
    float* next = scratch;
    auto take = [&](long n) {
      float* place = next;
      next += up(n, WIDTH) * padded;
      return place;
    };
    units[0] = take(job.layers[0].in);
    for (long l = 0; l < job.count; l++) {
      const Layer& layer = job.layers[l];
      const long n = layer.out;
      examples[l] = take(layer.in);
      keep[l] = l && layer.scale ? take(layer.in) : nullptr;
      gradients[l] = take(n);
      linear[l] = take(n);
      entered[l] = layer.norm.place == BEFORE ? take(n) : linear[l];
      active[l] = needs_input(layer.activation) ? take(n) : entered[l];
      normed[l] = layer.norm.place == AFTER ? take(n) : active[l];
      units[l + 1] = l + 1 < job.count && job.layers[l + 1].scale ? take(n) : normed[l];
      norms[l] = next;
      if (layer.norm.place) next += 4 * up(n, WIDTH);
    }
    floats = next - scratch;
  }

  // The index of an example in a unit's row, in an array by n units.
  long at(long n, long unit, long m) const {
    return (m / columns * n + unit) * columns + m % columns;
  }
};

// One thread's part of a step. Between two calls all threads wait for each other.
class Pass {
 public:
  explicit Pass(const Plan& plan) : plan(plan), job(plan.job) {}

  // Copy the batch into both layouts, and turn random numbers into `keep`.
  void gather(long step) {
    const long n = job.layers[0].in;
    const int64_t* batch = job.chosen(step);
    const Range own(n, BLOCK);
    for (long l = 1; l < job.count; l++)
      if (job.layers[l].scale) draw(step, l);
    const Layer& layer = job.layers[0];
    const int16_t* mask = layer.scale ? job.mask(step, 0) : nullptr;
    for (long m = 0; m < plan.padded; m++)
      for (long k = own.from; k < own.to; k += BLOCK) {
        const long w = width(n, k), real = std::min(w, n - k);
        float* to = plan.examples[0] + k * plan.padded + m * w;
        if (m >= job.batch) std::memset(to, 0, w * sizeof(float));
        else std::memcpy(to, job.X + batch[m] * n + k, real * sizeof(float));
        if (layer.scale && m < job.batch)
          for (long j = 0; j < real; j += WIDTH) {
            const long some = std::min<long>(WIDTH, real - j);
            store(to + j, load(to + j) * scales(layer, mask + m * n + k + j, some));
          }
      }
    for (long k = own.from; k < own.to; k += BLOCK)
      for (long m = 0; m < plan.padded; m += WIDTH)
        for (long j = k; j < std::min(k + BLOCK, n); j += WIDTH) {
          const long w = width(n, k);
          transpose(plan.examples[0] + k * plan.padded + m * w + j - k, w,
                    plan.units[0] + plan.at(n, j, m), plan.columns, std::min<long>(WIDTH, n - j));
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
          float* sums = plan.linear[l] + m * n + r * columns;
          if (d == 0)
            for (long i = 0; i < tile.rows * columns; i += WIDTH)
              store(sums + i, splat(layer.bias.values ? layer.bias.values[r + i / columns] : 0.f));
          tile.multiply(sums, layer.weight.values + r * layer.in + d, layer.in, 1,
                        plan.units[l] + m * layer.in + d * columns, depth, nullptr);
        }
        if (d + depth == layer.in)
          for (long unit = r; unit < r + tile.rows; unit++) from_linear(l, unit);
        r += tile.rows;
      }
    }
    if (l + 1 == job.count) return;
    for (long j = own.from; j < own.to;) {  // copies the outputs into the layout by examples
      const long k = j / BLOCK * BLOCK, w = width(n, k);
      const long real = std::min(WIDTH - j % WIDTH, own.to - j);
      for (long m = 0; m < plan.padded; m += WIDTH) {
        const float* from = plan.units[l + 1] + plan.at(n, j, m);
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
    const long l = job.count - 1, n = job.layers[l].out;
    const Range own(plan.padded, WIDTH);
    for (long m = own.from; m < own.to; m += WIDTH) {
      const long at = plan.at(n, 0, m);
      const Outputs outputs(job, step, m, plan.units[l + 1] + at, plan.columns);
      sums[m / WIDTH] = loss_of(outputs, plan.gradients[l] + at);
    }
  }

  // Compute the gradient of the products of layer l - 1.
  void backward(long l) {
    const Layer& layer = job.layers[l];
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
        }
        if (d + depth == layer.out)
          for (long unit = r; unit < r + tile.rows; unit++) to_linear(l - 1, unit);
        r += tile.rows;
      }
    }
  }

  template <class Rule>
  void update(const Numbers numbers) {
    for (long l = job.count - 1; l >= 0; l--) update<Rule>(l, numbers[l]);
  }

 private:
  // Set `keep` of this thread's inputs of layer l.
  void draw(long step, long l) {
    const Layer& layer = job.layers[l];
    const long n = layer.in;
    const int16_t* bits = job.mask(step, l);
    const Range own(n, WIDTH);
    for (long m = 0; m < plan.padded; m += WIDTH)
      for (long j = own.from; j < own.to; j += WIDTH) {
        alignas(64) float kept[WIDTH * WIDTH] = {};
        const long real = std::min<long>(WIDTH, n - j);
        for (long i = 0; i < WIDTH && m + i < job.batch; i++)
          store(kept + i * WIDTH, scales(layer, bits + (m + i) * n + j, real));
        transpose(kept, WIDTH, plan.keep[l] + plan.at(n, j, m), plan.columns, real);
      }
  }

  // The scale of `count` inputs, at most WIDTH: 0 for those that are dropped.
  static Vec scales(const Layer& layer, const int16_t* bits, long count) {
    typedef int16_t Short __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));
    Short found{};
    if (count == WIDTH) found = *reinterpret_cast<const Short*>(bits);
    else std::memcpy(&found, bits, count * sizeof(int16_t));
    const Int kept = __builtin_convertvector(found, Int) >= (int32_t)layer.threshold;
    return choose(kept, splat(layer.scale), Vec{});
  }

  // Compute what a unit of layer l gives, from its products.
  void from_linear(long l, long unit) {
    const Layer& layer = job.layers[l];
    if (layer.norm.place == BEFORE) normalize(l, unit, plan.linear[l], plan.entered[l]);
    if (layer.activation)
      each(l, unit, [&](long i, long) {
        store(plan.active[l] + i,
              activate(layer.activation, layer.slope, load(plan.entered[l] + i)));
      });
    if (layer.norm.place == AFTER) normalize(l, unit, plan.active[l], plan.normed[l]);
    if (plan.units[l + 1] != plan.normed[l])
      each(l, unit, [&](long i, long) {
        store(plan.units[l + 1] + i, load(plan.normed[l] + i) * load(plan.keep[l + 1] + i));
      });
  }

  // Compute the gradient of a unit's products from that of `units[l + 1]`, in its place.
  void to_linear(long l, long unit) {
    const Layer& layer = job.layers[l];
    float* g = plan.gradients[l];
    if (plan.units[l + 1] != plan.normed[l])
      each(l, unit, [&](long i, long) { store(g + i, load(g + i) * load(plan.keep[l + 1] + i)); });
    if (layer.norm.place == AFTER) denormalize(l, unit, plan.active[l]);
    const float* known = needs_input(layer.activation) ? plan.entered[l] : plan.active[l];
    if (layer.activation)
      each(l, unit, [&](long i, long) {
        store(g + i, load(g + i) * derivative(layer.activation, layer.slope, load(known + i)));
      });
    if (layer.norm.place == BEFORE) denormalize(l, unit, plan.linear[l]);
  }

  // Call act(i, m) for all vectors of a unit of layer l: their place, and their first example.
  template <class Act>
  void each(long l, long unit, Act act) {
    for (long m = 0; m < plan.padded; m += WIDTH) act(plan.at(job.layers[l].out, unit, m), m);
  }

  // Batch normalization of a unit over the batch, without the padding.
  void normalize(long l, long unit, const float* from, float* to) {
    const Norm& norm = job.layers[l].norm;
    const long n = up(job.layers[l].out, WIDTH), batch = job.batch;
    Vec sum{}, squares{};
    each(l, unit, [&](long i, long m) { sum += first(load(from + i), batch - m); });
    const double mean = total(sum) / batch;
    each(l, unit, [&](long i, long m) {
      const Vec d = first(load(from + i) - (float)mean, batch - m);
      squares += d * d;
    });
    const double variance = total(squares) / batch, inverse = 1 / std::sqrt(variance + norm.eps);
    plan.norms[l][unit] = mean, plan.norms[l][n + unit] = inverse;
    const float weight = norm.weight.values ? norm.weight.values[unit] : 1;
    const float bias = norm.bias.values ? norm.bias.values[unit] : 0;
    each(l, unit, [&](long i, long) {
      store(to + i, (load(from + i) - (float)mean) * (float)inverse * weight + bias);
    });
    if (!norm.mean) return;
    const double unbiased = variance * batch / (batch - 1);
    norm.mean[unit] += norm.momentum * (mean - norm.mean[unit]);
    norm.variance[unit] += norm.momentum * (unbiased - norm.variance[unit]);
  }

  // Turn the gradient of a unit's batch norm into that of its inputs.
  void denormalize(long l, long unit, const float* inputs) {
    const Norm& norm = job.layers[l].norm;
    const long n = up(job.layers[l].out, WIDTH);
    float *g = plan.gradients[l], *kept = plan.norms[l] + unit;
    const float mean = kept[0], inverse = kept[n];
    Vec dots{}, sums{};
    each(l, unit, [&](long i, long) {  // the gradient of padding is 0
      dots += load(g + i) * (load(inputs + i) - mean);
      sums += load(g + i);
    });
    const double of_weight = total(dots) * inverse, of_bias = total(sums);
    kept[2 * n] = of_weight, kept[3 * n] = of_bias;
    const float weight = norm.weight.values ? norm.weight.values[unit] : 1;
    const float slope = of_weight / job.batch * inverse, shift = of_bias / job.batch;
    each(l, unit, [&](long i, long m) {
      const Vec centred = load(inputs + i) - mean;
      const Vec all = (load(g + i) - shift - centred * slope) * (weight * inverse);
      store(g + i, first(all, job.batch - m));
    });
  }

  template <class Rule>
  void update(long l, const float (*numbers)[NUMBERS]) {
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
          ::update<Rule>(layer.weight, (row + i) * n + k, g + i * w, std::min(w, n - k),
                         numbers[0]);
        row += tile.rows;
      }
    };
    const long whole = n / BLOCK * BLOCK;
    for (long r = own.from; r < own.to; r += SUMS / WIDE)
      for (long k = 0; k < whole; k += BLOCK) strip(k, r, std::min<long>(own.to, r + SUMS / WIDE));
    if (whole < n) strip(whole, own.from, own.to);  // a narrow strip takes more rows together
    const float* of_norm = plan.norms[l] + 2 * up(layer.out, WIDTH) + own.from;
    if (layer.norm.weight.values)
      ::update<Rule>(layer.norm.weight, own.from, of_norm, own.to - own.from, numbers[2]);
    if (layer.norm.bias.values)
      ::update<Rule>(layer.norm.bias, own.from, of_norm + up(layer.out, WIDTH),
                     own.to - own.from, numbers[3]);
    if (!layer.bias.values) return;
    for (long r = own.from; r < own.to; r++) {
      Vec sum{};
      for (long m = 0; m < plan.padded; m += WIDTH)
        sum += load(plan.gradients[l] + plan.at(layer.out, r, m));
      const float g = total(sum);
      ::update<Rule>(layer.bias, r, &g, 1, numbers[1]);
    }
  }

  const Plan& plan;
  const Job& job;
};

}  // namespace
