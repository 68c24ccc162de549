// A model, the batches of its next steps, activations and losses.

#pragma once

#include "rules.hpp"

namespace {

constexpr long EXAMPLES = 512;  // at most in a batch: MAX_EXAMPLES of eligibility.py
constexpr int LAYERS = 16;  // at most in a model: MAX_LAYERS of eligibility.py

// in the order of eligibility.py
enum Activation { IDENTITY, RELU, LEAKY_RELU, SIGMOID, TANH, ELU, GELU, SILU };
enum Place { NOWHERE, BEFORE, AFTER };  // of batch norm: before or after the activation
enum Loss { CROSS_ENTROPY, SQUARED_LINEAR, SQUARED_SIGMOID, SQUARED_SOFTMAX, BINARY };

// The structs of mlp.py.

struct Norm {  // batch normalization (Ioffe & Szegedy 2015)
  int64_t place;
  double eps, momentum;
  Parameter weight, bias;
  float *mean, *variance;  // running statistics; null: none are kept
};

struct Layer {  // dropout of the inputs, a linear layer, batch norm and an activation
  int64_t in, out, activation;
  double slope;
  Parameter weight, bias;
  Norm norm;
  int64_t threshold;  // inputs whose random number is at least this are kept
  double scale;       // of the kept inputs; 0: no dropout

  // All parameters, in the order of `Numbers`.
  void parameters(const Parameter** found) const {
    found[0] = &weight, found[1] = &bias, found[2] = &norm.weight, found[3] = &norm.bias;
  }
};

struct Job {
  const Layer* layers;
  int64_t count;  // of layers
  int64_t batch;  // examples in a batch
  int64_t steps;
  const float* X;          // (examples, inputs of the first layer)
  const int64_t* Y;        // (examples,): classes; or null
  const float* T;          // (examples, outputs of the last layer): targets; or null
  const int64_t* batches;  // (steps, batch): indices of X, Y and T
  const int16_t* const* masks;  // (steps, layers with dropout): (batch, inputs) random numbers
  const double* rates;  // (steps, groups): lr
  int64_t groups;
  const double* decays;  // (groups,): weight decay that is added to the gradient
  int64_t loss;
  double smoothing;  // of the labels

  const int64_t* chosen(long step) const { return batches + step * batch; }

  // The random numbers for the inputs of a layer with dropout.
  const int16_t* mask(long step, long layer) const {
    long each = 0, before = 0;
    for (long l = 0; l < count; l++)
      if (layers[l].scale) each++, before += l < layer;
    return masks[step * each + before];
  }
};

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
    case GELU: return 0.5f * x * (1.f + error_function(x * 0.70710678f));
    case SILU: return x / (1.f + exponential(-x));
    default: return x;
  }
}

// Whether `derivative` needs the activation's input; else it needs the output.
inline bool needs_input(int64_t kind) { return kind == GELU || kind == SILU; }

// Return an activation's derivative, given its input or output v.
inline Vec derivative(int64_t kind, float slope, Vec v) {
  switch (kind) {
    case RELU: return choose(v > 0.f, splat(1.f), Vec{});
    case LEAKY_RELU: return choose(v > 0.f, splat(1.f), splat(slope));
    case SIGMOID: return v * (1.f - v);
    case TANH: return 1.f - v * v;
    case ELU: return choose(v > 0.f, splat(1.f), v + slope);
    case GELU:
      return 0.5f * (1.f + error_function(v * 0.70710678f)) +
             v * 0.39894228f * exponential(-0.5f * v * v);
    case SILU: {
      const Vec s = 1.f / (1.f + exponential(-v));
      return s * (1.f + v * (1.f - s));
    }
    default: return splat(1.f);
  }
}

// The targets of WIDTH examples from index `m` on, and their outputs: a row for each unit or class,
// `row` floats apart.
struct Outputs {
  const Job& job;
  const int64_t* batch;
  long real, count, row;  // examples, outputs
  const float* values;

  Outputs(const Job& job, long step, long m, const float* values, long row)
      : job(job), batch(job.chosen(step) + m), real(std::min<long>(WIDTH, job.batch - m)),
        count(job.layers[job.count - 1].out), row(row), values(values) {}

  Vec output(long c) const { return load(values + c * row); }
  Vec target(long c) const {
    Vec t{};
    for (long i = 0; i < real; i++)
      t[i] = job.T ? job.T[batch[i] * count + c] : job.Y[batch[i]] == c ? 1.f : 0.f;
    return t;
  }
  // Each example's share in the mean over examples and `each`; 0 for padding.
  Vec share(long each) const { return first(splat(1.f / (job.batch * each)), real); }
};

// Write the exponentials of the outputs, divided by that of the largest, and return their sum.
inline Vec exponentials(const Outputs& o, float* to, Vec* top) {
  *top = o.output(0);
  for (long c = 1; c < o.count; c++) *top = larger(o.output(c), *top);
  Vec sum{};
  for (long c = 0; c < o.count; c++) {
    const Vec e = exponential(o.output(c) - *top);
    store(to + c * o.row, e);
    sum += e;
  }
  return sum;
}

// The functions below write the gradient of the loss to `gradient`, and return the sum of the losses.

inline double cross_entropy(const Outputs& o, float* gradient) {  // with label smoothing
  const float smoothing = o.job.smoothing, even = smoothing / o.count;
  const Vec share = o.share(1);
  Vec top, all{};
  const Vec sum = exponentials(o, gradient, &top);
  if (smoothing)
    for (long c = 0; c < o.count; c++) all += o.output(c) - top;
  for (long c = 0; c < o.count; c++)
    store(gradient + c * o.row, (load(gradient + c * o.row) / sum - even) * share);
  double loss = 0;
  for (long i = 0; i < o.real; i++) {
    const long at = o.job.Y[o.batch[i]] * o.row + i;
    loss += std::log((double)sum[i]) - (1 - smoothing) * (o.values[at] - top[i]);
    if (smoothing) loss -= even * all[i];
    gradient[at] -= (1 - smoothing) * share[i];
  }
  return loss;
}

inline double squared(const Outputs& o, float* gradient) {  // of linear or sigmoid outputs
  const bool sigmoid = o.job.loss == SQUARED_SIGMOID;
  const Vec share = 2.f * o.share(o.count);
  double loss = 0;
  for (long c = 0; c < o.count; c++) {
    const Vec y = sigmoid ? activate(SIGMOID, 0, o.output(c)) : o.output(c);
    const Vec error = y - o.target(c);
    loss += total(first(error * error, o.real));
    store(gradient + c * o.row, sigmoid ? error * share * derivative(SIGMOID, 0, y) : error * share);
  }
  return loss / o.count;
}

inline double squared_softmax(const Outputs& o, float* gradient) {
  const Vec share = 2.f * o.share(o.count);
  Vec top, dot{};
  const Vec sum = exponentials(o, gradient, &top);
  double loss = 0;
  for (long c = 0; c < o.count; c++) {
    const Vec y = load(gradient + c * o.row) / sum, error = y - o.target(c);
    loss += total(first(error * error, o.real));
    dot += error * y;
  }
  for (long c = 0; c < o.count; c++) {
    const Vec y = load(gradient + c * o.row) / sum;
    store(gradient + c * o.row, y * (y - o.target(c) - dot) * share);
  }
  return loss / o.count;
}

inline double binary(const Outputs& o, float* gradient) {  // one against all
  const Vec share = o.share(o.count);
  double loss = 0;
  for (long c = 0; c < o.count; c++) {
    const Vec x = o.output(c), t = o.target(c), size = choose(x < 0.f, -x, x);
    const Vec e = exponential(-size), linear = larger(x, Vec{}) - x * t;
    for (long i = 0; i < o.real; i++) loss += linear[i] + std::log1p((double)e[i]);
    store(gradient + c * o.row, (activate(SIGMOID, 0, x) - t) * share);
  }
  return loss / o.count;
}

inline double loss_of(const Outputs& o, float* gradient) {
  switch (o.job.loss) {
    case CROSS_ENTROPY: return cross_entropy(o, gradient);
    case SQUARED_SOFTMAX: return squared_softmax(o, gradient);
    case BINARY: return binary(o, gradient);
    default: return squared(o, gradient);
  }
}

// The numbers of each layer's parameters.
typedef float Numbers[LAYERS][4][NUMBERS];

template <class Rule>
void prepare(const Job& job, long step, Numbers numbers) {
  for (long l = 0; l < job.count; l++) {
    const Parameter* all[4];
    job.layers[l].parameters(all);
    for (int i = 0; i < 4; i++) {
      const Parameter& p = *all[i];
      Rule::prepare(p.settings, job.rates[step * job.groups + p.group], p.steps + step + 1,
                    numbers[l][i]);
      numbers[l][i][NUMBERS - 1] = job.decays[p.group];
    }
  }
}

}  // namespace
