// Whole training steps of a multilayer perceptron on a CPU; dense.py compiles and calls it.
//
// Three products make up a step of a layer: outputs W x, the inputs' gradient W' g, and the
// weights' gradient g x'. All are sums of the form  sums[row] += scalar * vector, with the examples
// of a batch (or, for the weights' gradient, the inputs) along the vectors, so that the weights are
// read where they lie, never packed. The weights' gradient is never stored: each tile of it goes
// straight into the optimizer's update.
//
// Every number is computed by one thread and summed in one order, whatever the number of threads:
// the results are the same, bit for bit.
//
// Of a layer with n units, for a batch padded to whole blocks of `columns` examples:
//   by units     [block of examples][n][columns]            outputs and gradients
//   by examples  [block of BLOCK units][examples][width]    outputs again, for the next layer

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
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

// floats in a register; registers that hold sums, of a tile of rows by at most WIDE vectors
#if defined(__AVX512F__)
constexpr int WIDTH = 16, SUMS = 24, WIDE = 4;
#elif defined(__AVX__)
constexpr int WIDTH = 8, SUMS = 12, WIDE = 2;
#else
constexpr int WIDTH = 4, SUMS = 24, WIDE = 4;
#endif
constexpr int FEW = 4;  // rows of a smaller tile
constexpr long BLOCK = WIDE * WIDTH;
constexpr long LINE = 16;  // floats that memory gives at once
constexpr long DEPTH = 128;       // summed at once: BLOCK floats of each stay in the first cache
constexpr long EXAMPLES = 512;  // of a batch, at most (and one that is left over): see dense.py
constexpr int LAYERS = 16;  // of a model

typedef float Vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Int __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }
inline Vec splat(float x) { return x - Vec{}; }
inline Vec choose(Int mask, Vec a, Vec b) {
  return (Vec)((mask & (Int)a) | (~mask & (Int)b));
}
inline Vec larger(Vec a, Vec b) { return choose(a > b, a, b); }
inline Vec root(Vec v) {
  Vec r;
  for (int i = 0; i < WIDTH; i++) r[i] = __builtin_sqrtf(v[i]);
  return r;
}

// exp and tanh after Cephes (S. Moshier); a NaN stays one
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

enum Activation { IDENTITY, RELU, LEAKY_RELU, SIGMOID, TANH, ELU };

inline Vec activate(int64_t kind, float slope, Vec x) {
  switch (kind) {
    case RELU: return choose(x <= 0.f, Vec{}, x);
    case LEAKY_RELU: return choose(x > 0.f, x, slope * x);
    case SIGMOID: return 1.f / (1.f + exponential(-x));
    case TANH: return hyperbolic_tangent(x);
    case ELU: {
      const Vec t = hyperbolic_tangent(0.5f * x);  // e^x - 1 = 2 t / (1 - t)
      return choose(x > 0.f, x, slope * 2.f * t / (1.f - t));
    }
    default: return x;
  }
}

// of the outputs, not the inputs
inline Vec derivative(int64_t kind, float slope, Vec y) {
  switch (kind) {
    case RELU: return choose(y > 0.f, splat(1.f), Vec{});
    case LEAKY_RELU: return choose(y > 0.f, splat(1.f), splat(slope));
    case SIGMOID: return y * (1.f - y);
    case TANH: return 1.f - y * y;
    case ELU: return choose(y > 0.f, splat(1.f), y + slope);
    default: return splat(1.f);
  }
}

// A parameter and what the optimizer keeps of it.
struct Parameter {
  float* values;  // null: the layer has none
  float* state[3];
  double settings[4];
  double steps;   // taken before
  int64_t group;  // whose lr it has
};

struct Layer {
  int64_t in, out, activation;
  double slope;
  Parameter weight, bias;
};

// The rules of torch.optim. settings: of the group, as dense.py lists them; `numbers` are what a
// step makes of them, the lr and the number t of the step.
struct Sgd {  // lr
  static constexpr int STATES = 0;
  static void prepare(const double*, double lr, double, float* numbers) { numbers[0] = lr; }
  static void step(Vec& p, Vec g, Vec*, const float* n) { p -= n[0] * g; }
};

struct Momentum {  // momentum, dampening, nesterov
  static constexpr int STATES = 1;
  static void prepare(const double* s, double lr, double, float* n) {
    n[0] = lr, n[1] = s[0], n[2] = 1 - s[1];
    n[3] = s[2] ? 1 : 0, n[4] = s[2] ? s[0] : 1;
  }
  static void step(Vec& p, Vec g, Vec* s, const float* n) {
    s[0] = n[1] * s[0] + n[2] * g;
    p -= n[0] * (n[3] * g + n[4] * s[0]);
  }
};

struct Adam {  // beta1, beta2, eps, decoupled weight decay
  static constexpr int STATES = 2;
  static void prepare(const double* s, double lr, double t, float* n) {
    n[0] = 1 - s[0], n[1] = s[1], n[2] = 1 - s[1];
    n[3] = lr / (1 - std::pow(s[0], t)), n[4] = 1 / std::sqrt(1 - std::pow(s[1], t));
    n[5] = s[2], n[6] = 1 - lr * s[3];
  }
  static void step(Vec& p, Vec g, Vec* s, const float* n) {
    s[0] += n[0] * (g - s[0]);
    s[1] = n[1] * s[1] + n[2] * g * g;
    p = n[6] * p - n[3] * s[0] / (root(s[1]) * n[4] + n[5]);
  }
};

struct Amsgrad : Adam {
  static constexpr int STATES = 3;
  static void step(Vec& p, Vec g, Vec* s, const float* n) {
    s[0] += n[0] * (g - s[0]);
    s[1] = n[1] * s[1] + n[2] * g * g;
    s[2] = larger(s[1], s[2]);
    p = n[6] * p - n[3] * s[0] / (root(s[2]) * n[4] + n[5]);
  }
};

struct RmsProp {  // alpha, eps
  static constexpr int STATES = 1;
  static void prepare(const double* s, double lr, double, float* n) {
    n[0] = lr, n[1] = s[0], n[2] = 1 - s[0], n[3] = s[1];
  }
  static void step(Vec& p, Vec g, Vec* s, const float* n) {
    s[0] = n[1] * s[0] + n[2] * g * g;
    p -= n[0] * g / (root(s[0]) + n[3]);
  }
};

struct Adagrad {  // lr_decay, eps
  static constexpr int STATES = 1;
  static void prepare(const double* s, double lr, double t, float* n) {
    n[0] = lr / (1 + (t - 1) * s[0]), n[1] = s[1];
  }
  static void step(Vec& p, Vec g, Vec* s, const float* n) {
    s[0] += g * g;
    p -= n[0] * g / (root(s[0]) + n[1]);
  }
};

struct Adadelta {  // rho, eps
  static constexpr int STATES = 2;
  static void prepare(const double* s, double lr, double, float* n) {
    n[0] = lr, n[1] = s[0], n[2] = 1 - s[0], n[3] = s[1];
  }
  static void step(Vec& p, Vec g, Vec* s, const float* n) {
    s[0] = n[1] * s[0] + n[2] * g * g;
    const Vec delta = root(s[1] + n[3]) / root(s[0] + n[3]) * g;
    s[1] = n[1] * s[1] + n[2] * delta * delta;
    p -= n[0] * delta;
  }
};

constexpr int NUMBERS = 8;  // the last is the weight decay that is added to the gradient

// Update `count` numbers of a parameter from place `at` on.
template <class Rule>
void update(const Parameter& p, long at, const float* g, long count, const float* numbers) {
  auto step = [&](float* values, float* const* states, const float* gradient) {
    Vec v = load(values), s[3] = {};
    for (int i = 0; i < Rule::STATES; i++) s[i] = load(states[i]);
    Rule::step(v, load(gradient) + numbers[NUMBERS - 1] * v, s, numbers);
    store(values, v);
    for (int i = 0; i < Rule::STATES; i++) store(states[i], s[i]);
  };
  long done = 0;
  for (; done + WIDTH <= count; done += WIDTH) {
    float* states[3];
    for (int i = 0; i < Rule::STATES; i++) states[i] = p.state[i] + at + done;
    step(p.values + at + done, states, g + done);
  }
  if (const size_t bytes = (count - done) * sizeof(float)) {
    float values[WIDTH] = {}, gradient[WIDTH] = {}, own[3][WIDTH] = {};
    float* states[3] = {own[0], own[1], own[2]};
    std::memcpy(values, p.values + at + done, bytes);
    std::memcpy(gradient, g + done, bytes);
    for (int i = 0; i < Rule::STATES; i++) std::memcpy(own[i], p.state[i] + at + done, bytes);
    step(values, states, gradient);
    std::memcpy(p.values + at + done, values, bytes);
    for (int i = 0; i < Rule::STATES; i++) std::memcpy(p.state[i] + at + done, own[i], bytes);
  }
}

typedef void Prepare(const double*, double, double, float*);
typedef void Update(const Parameter&, long, const float*, long, const float*);
struct {
  Prepare* prepare;
  Update* update;
} const RULES[] = {
    {Sgd::prepare, update<Sgd>},         {Momentum::prepare, update<Momentum>},
    {Adam::prepare, update<Adam>},       {Amsgrad::prepare, update<Amsgrad>},
    {RmsProp::prepare, update<RmsProp>}, {Adagrad::prepare, update<Adagrad>},
    {Adadelta::prepare, update<Adadelta>},
};

// sums[r][:] += sum over d of scalars[r][d] * vectors[d][:], for R rows of V vectors.
// row, step: how far apart the scalars lie. ahead: null, or an address to fetch at each d.
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
      for (int v = 0; v < V; v++) s[r][v] += w * x[v];
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

// Rows from `row` on that are multiplied at once, and by what. vectors: of each row.
struct Tile {
  long rows;
  Multiply* multiply;
  Tile(long row, long end, int vectors) {
    const long full = SUMS / vectors, left = end - row;
    rows = left >= full ? full : left >= FEW ? FEW : 1;
    multiply = (rows == full ? FULL : rows == FEW ? SMALL : SINGLE)[vectors - 1];
  }
};

// The numbers with these places in a and then b.
template <int... PLACES>
inline Vec pick(Vec a, Vec b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, PLACES...);
#else
  return __builtin_shuffle(a, b, Int{PLACES...});
#endif
}

template <int S, int... J>  // bit S of the place in a row against that of the row
inline void exchange(Vec* rows, std::integer_sequence<int, J...>) {
#pragma GCC unroll 16
  for (int i = 0; i < WIDTH; i++)
    if (!(i & S)) {
      const Vec a = rows[i], b = rows[i + S];
      rows[i] = pick<(J & S ? WIDTH + J - S : J)...>(a, b);
      rows[i + S] = pick<(J & S ? WIDTH + J : J + S)...>(a, b);
    }
}

// to[j][i] = from[i][j], of a square of WIDTH; only the first `count` rows are written
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

// How a batch is laid out, and where.
struct Plan {
  const Layer* layers;
  long count, batch;
  int vectors;   // of a block of examples
  long columns;  // its examples
  long padded;   // examples of all blocks
  float *units[LAYERS + 1], *examples[LAYERS], *gradients[LAYERS];

  Plan(const Layer* layers, long count, long batch, float* scratch)
      : layers(layers), count(count), batch(batch) {
    const long needed = up(batch, WIDTH) / WIDTH, blocks = up(needed, WIDE) / WIDE;
    vectors = up(needed, blocks) / blocks;
    columns = vectors * WIDTH;
    padded = blocks * columns;
    float* next = scratch;
    auto take = [&](float*& place, long n) { place = next, next += up(n, WIDTH) * padded; };
    for (long l = 0; l <= count; l++) {
      const long n = l < count ? layers[l].in : layers[l - 1].out;
      take(units[l], n);
      if (l < count) take(examples[l], n);
      if (l > 0) take(gradients[l - 1], n);
    }
    floats = next - scratch;
  }
  long floats;
};

// floats of a unit block's row in the layout by examples
long width(long n, long from) { return std::min(BLOCK, up(n - from, WIDTH)); }

struct Range {
  long from, to;
  // this thread's share of `count`, in whole tiles of `unit`
  Range(long count, long unit) {
    const long tiles = up(count, unit) / unit, t = omp_get_thread_num(), T = omp_get_num_threads();
    from = std::min(count, tiles * t / T * unit);
    to = std::min(count, tiles * (t + 1) / T * unit);
  }
};

void gather(const Plan& plan, const float* X, const int64_t* batch) {
  const long n = plan.layers[0].in;
  const Range own(n, BLOCK);
  for (long m = 0; m < plan.padded; m++)
    for (long k = own.from; k < own.to; k += BLOCK) {
      const long w = width(n, k), real = std::min(w, n - k);
      float* to = plan.examples[0] + k * plan.padded + m * w;
      if (m >= plan.batch) std::memset(to, 0, w * sizeof(float));
      else std::memcpy(to, X + batch[m] * n + k, real * sizeof(float));
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

void forward(const Plan& plan, long l) {
  const Layer& layer = plan.layers[l];
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
  if (l + 1 == plan.count) return;
  for (long j = own.from; j < own.to;) {  // by examples too
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

// Cross-entropy with label smoothing, and its gradient. sums: of each WIDTH examples.
void loss(const Plan& plan, const int64_t* Y, const int64_t* batch, float smoothing, double* sums) {
  const long classes = plan.layers[plan.count - 1].out, columns = plan.columns;
  const float even = smoothing / classes;
  const Range own(plan.padded, WIDTH);
  for (long m = own.from; m < own.to; m += WIDTH) {
    const long at = m / columns * classes * columns + m % columns;
    const float* z = plan.units[plan.count] + at;
    float* g = plan.gradients[plan.count - 1] + at;
    Vec top = load(z), total{}, all{};
    for (long c = 1; c < classes; c++) top = larger(load(z + c * columns), top);
    for (long c = 0; c < classes; c++) {
      const Vec e = exponential(load(z + c * columns) - top);
      store(g + c * columns, e);
      total += e;
      all += load(z + c * columns) - top;
    }
    double sum = 0;
    Vec share{};  // of an example in the mean
    for (int i = 0; i < WIDTH && m + i < plan.batch; i++) {
      share[i] = 1.f / plan.batch;
      const float own_z = z[Y[batch[m + i]] * columns + i] - top[i];
      sum += std::log((double)total[i]) - (1 - smoothing) * own_z;
      if (smoothing) sum -= even * all[i];
    }
    sums[m / WIDTH] = sum;
    for (long c = 0; c < classes; c++)
      store(g + c * columns, (load(g + c * columns) / total - even) * share);
    for (int i = 0; i < WIDTH && m + i < plan.batch; i++)
      g[Y[batch[m + i]] * columns + i] -= (1 - smoothing) * share[i];
  }
}

// The gradient of the outputs of layer l - 1, before their activation.
void backward(const Plan& plan, long l) {
  const Layer &layer = plan.layers[l], &before = plan.layers[l - 1];
  const long n = layer.in, columns = plan.columns;
  const Range own(n, SUMS / plan.vectors);
  const float* ahead[DEPTH];
  for (long d = 0; d < layer.out; d += DEPTH) {
    const long depth = std::min(DEPTH, layer.out - d);
    for (long r = own.from; r < own.to;) {
      const Tile tile(r, own.to, plan.vectors);
      // a row of weights is read a few at a time, which the CPU does not foresee
      for (long i = 0; i < depth; i++) ahead[i] = layer.weight.values + (d + i) * n + r + 2 * LINE;
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

void update(const Plan& plan, long l, Update* rule, const float* of_weight, const float* of_bias) {
  const Layer& layer = plan.layers[l];
  const long n = layer.in, columns = plan.columns;
  const Range own(layer.out, SUMS / plan.vectors);
  const float* ahead[EXAMPLES + BLOCK];
  auto look_ahead = [&](long row, long rows, long k) {  // what the update from input k on reads
    long found = 0;
    for (long r = row; r < row + rows; r++)
      for (long j = k; j < std::min(k + BLOCK, n) && found + 4 <= plan.batch; j += LINE) {
        ahead[found++] = layer.weight.values + r * n + j;
        for (const float* state : layer.weight.state)
          if (state) ahead[found++] = state + r * n + j;
      }
    std::fill(ahead + found, ahead + plan.batch, layer.weight.values + row * n);
  };
  auto strip = [&](long k, long from, long to) {  // inputs from k on, of these rows
    const long w = width(n, k);
    for (long row = from; row < to;) {
      const Tile tile(row, to, w / WIDTH);
      alignas(64) float g[SUMS * WIDTH] = {};
      look_ahead(row, tile.rows, k + w);
      for (long m = 0; m < plan.padded; m += columns)
        tile.multiply(g, plan.gradients[l] + m * layer.out + row * columns, columns, 1,
                      plan.examples[l] + k * plan.padded + m * w,
                      std::min(columns, plan.batch - m), ahead + m);
      for (long i = 0; i < tile.rows; i++)
        rule(layer.weight, (row + i) * n + k, g + i * w, std::min(w, n - k), of_weight);
      row += tile.rows;
    }
  };
  const long whole = n / BLOCK * BLOCK;
  for (long r = own.from; r < own.to; r += SUMS / WIDE)
    for (long k = 0; k < whole; k += BLOCK) strip(k, r, std::min<long>(own.to, r + SUMS / WIDE));
  if (whole < n) strip(whole, own.from, own.to);  // narrower: more rows at once
  if (!layer.bias.values) return;
  for (long r = own.from; r < own.to; r++) {
    Vec sum{};
    for (long m = 0; m < plan.padded; m += WIDTH)
      sum += load(plan.gradients[l] + (m / columns * layer.out + r) * columns + m % columns);
    float g = 0;
    for (int i = 0; i < WIDTH; i++) g += sum[i];
    rule(layer.bias, r, &g, 1, of_bias);
  }
}

void prepare(const Parameter& p, Prepare* rule, double step, const double* rates, double decay,
             float* numbers) {
  rule(p.settings, rates[p.group], p.steps + step, numbers);
  numbers[NUMBERS - 1] = decay;
}

}  // namespace

extern "C" {

// floats that `dense_steps` works in
int64_t dense_scratch(const Layer* layers, int64_t count, int64_t batch) {
  return Plan(layers, count, batch, nullptr).floats;
}

// Take a step with each of `steps` batches of indices of X and Y; losses: of each.
// rates: of each step, the lr of each group. decays: of each group, added to the gradient.
void dense_steps(const Layer* layers, int64_t count, int64_t rule, double smoothing,
                 const double* decays, const float* X, const int64_t* Y, const int64_t* batches,
                 int64_t batch, int64_t steps, const double* rates, int64_t groups, int64_t threads,
                 float* scratch, float* losses) {
  const Plan plan(layers, count, batch, scratch);
  double sums[EXAMPLES / WIDTH + WIDE];
#pragma omp parallel num_threads(threads)
  {
#ifdef __SSE__
    // what is smaller than float32's normal numbers takes a hundred times as long
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
#endif
    for (long i = 0; i < steps; i++) {
      const int64_t* own = batches + i * batch;
      gather(plan, X, own);
#pragma omp barrier
      for (long l = 0; l < count; l++) {
        forward(plan, l);
#pragma omp barrier
      }
      loss(plan, Y, own, smoothing, sums);
#pragma omp barrier
      for (long l = count - 1; l > 0; l--) {
        backward(plan, l);
#pragma omp barrier
      }
      for (long l = count - 1; l >= 0; l--) {
        float numbers[2][NUMBERS];
        const Parameter* both[] = {&layers[l].weight, &layers[l].bias};
        for (int j = 0; j < 2; j++)
          prepare(*both[j], RULES[rule].prepare, i + 1, rates + i * groups,
                  decays[both[j]->group], numbers[j]);
        update(plan, l, RULES[rule].update, numbers[0], numbers[1]);
      }
      if (omp_get_thread_num() == 0) {
        double total = 0;
        for (long m = 0; m < plan.padded; m += WIDTH) total += sums[m / WIDTH];
        losses[i] = total / batch;
      }
#pragma omp barrier
    }
#ifdef __SSE__
    _mm_setcsr(mode);
#endif
  }
}

}  // extern "C"
