// Numbers in vectors, activations, the loss, and the rules of optimizers.

#pragma once

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

// floats in a vector register
#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
constexpr long LINE = 16;  // floats in a cache line
constexpr long EXAMPLES = 512;  // at most in a batch: MAX_EXAMPLES of eligibility.py
constexpr int LAYERS = 16;  // at most in a model: MAX_LAYERS of eligibility.py

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

// Return an activation's derivative, given the activation's output y.
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

// A parameter and the optimizer's state of it.
struct Parameter {
  float* values;  // null: the layer has no such parameter
  float* state[3];
  double settings[4];
  double steps;   // taken before this call
  int64_t group;  // of the optimizer, with the parameter's lr
};

struct Layer {
  int64_t in, out, activation;
  double slope;
  Parameter weight, bias;
};

// The rules of torch.optim. `prepare` turns a group's settings (in the order of mlp.py), the lr and
// the number t of the step into the `numbers` that `step` uses.
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

struct Adadelta : RmsProp {  // rho, eps
  static constexpr int STATES = 2;
  static void step(Vec& p, Vec g, Vec* s, const float* n) {
    s[0] = n[1] * s[0] + n[2] * g * g;
    const Vec delta = root(s[1] + n[3]) / root(s[0] + n[3]) * g;
    s[1] = n[1] * s[1] + n[2] * delta * delta;
    p -= n[0] * delta;
  }
};

constexpr int NUMBERS = 8;  // the last one is the weight decay that is added to the gradient

// Return the gradient with its weight decay. A decay of 0 adds nothing, even to infinite values.
inline Vec decayed(Vec g, Vec values, const float* numbers) {
  const float decay = numbers[NUMBERS - 1];
  return decay == 0 ? g : g + decay * values;
}

// Update `count` numbers of a parameter, from index `at` on.
template <class Rule>
void update(const Parameter& p, long at, const float* g, long count, const float* numbers) {
  auto step = [&](float* values, float* const* states, const float* gradient) {
    Vec v = load(values), s[3] = {};
    for (int i = 0; i < Rule::STATES; i++) s[i] = load(states[i]);
    Rule::step(v, decayed(load(gradient), v, numbers), s, numbers);
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

// Call `act` with the rule that has this number in mlp.py.
template <class Act>
void with_rule(int64_t place, Act act) {
  switch (place) {
    case 0: return act(Sgd{});
    case 1: return act(Momentum{});
    case 2: return act(Adam{});
    case 3: return act(Amsgrad{});
    case 4: return act(RmsProp{});
    case 5: return act(Adagrad{});
    default: return act(Adadelta{});
  }
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

struct Range {
  long from, to;
  // This thread's share of `count`, in whole tiles of `unit`.
  Range(long count, long unit) {
    const long tiles = up(count, unit) / unit, t = omp_get_thread_num(), T = omp_get_num_threads();
    from = std::min(count, tiles * t / T * unit);
    to = std::min(count, tiles * (t + 1) / T * unit);
  }
};

// A model, and the batches of its next steps.
struct Job {
  const Layer* layers;
  long count;   // of layers
  long batch;   // examples in a batch
  long steps;
  const float* X;          // (examples, inputs of the first layer)
  const int64_t* Y;        // (examples,): classes
  const int64_t* batches;  // (steps, batch): indices of X and Y
  const double* rates;     // (steps, groups): lr
  long groups;
  const double* decays;  // (groups,): weight decay that is added to the gradient
  double smoothing;      // of the labels

  const int64_t* chosen(long step) const { return batches + step * batch; }
};

// Compute cross-entropy with label smoothing and its gradient for WIDTH examples from index `m` on,
// and return the sum of the losses. logits, gradient: a row for each class, `row` floats apart.
double cross_entropy(const Job& job, long step, long m, const float* logits, float* gradient,
                     long row) {
  const int64_t *Y = job.Y, *batch = job.chosen(step) + m;
  const long classes = job.layers[job.count - 1].out;
  const long real = std::min<long>(WIDTH, job.batch - m);
  const float smoothing = job.smoothing, even = smoothing / classes;
  Vec top = load(logits), total{}, all{};
  for (long c = 1; c < classes; c++) top = larger(load(logits + c * row), top);
  for (long c = 0; c < classes; c++) {
    const Vec e = exponential(load(logits + c * row) - top);
    store(gradient + c * row, e);
    total += e;
    all += load(logits + c * row) - top;
  }
  double sum = 0;
  Vec share{};  // of each example in the mean; 0 for padding
  for (int i = 0; i < real; i++) {
    share[i] = 1.f / job.batch;
    const float own = logits[Y[batch[i]] * row + i] - top[i];
    sum += std::log((double)total[i]) - (1 - smoothing) * own;
    if (smoothing) sum -= even * all[i];
  }
  for (long c = 0; c < classes; c++)
    store(gradient + c * row, (load(gradient + c * row) / total - even) * share);
  for (int i = 0; i < real; i++) gradient[Y[batch[i]] * row + i] -= (1 - smoothing) * share[i];
  return sum;
}

// The numbers of each layer's weight and bias.
typedef float Numbers[LAYERS][2][NUMBERS];

template <class Rule>
void prepare(const Job& job, long step, Numbers numbers) {
  for (long l = 0; l < job.count; l++) {
    const Parameter* both[] = {&job.layers[l].weight, &job.layers[l].bias};
    for (int i = 0; i < 2; i++) {
      const Parameter& p = *both[i];
      Rule::prepare(p.settings, job.rates[step * job.groups + p.group], p.steps + step + 1,
                    numbers[l][i]);
      numbers[l][i][NUMBERS - 1] = job.decays[p.group];
    }
  }
}

}  // namespace
