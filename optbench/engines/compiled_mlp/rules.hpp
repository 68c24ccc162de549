// Parameters, and the rules of optimizers.

#pragma once

#include "vectors.hpp"

namespace {

// A parameter and the optimizer's state of it.
struct Parameter {
  float* values;  // null: the layer has no such parameter
  float* state[3];
  double settings[4];
  double steps;   // taken before this call
  int64_t group;  // of the optimizer, with the parameter's lr
};

// The rules of torch.optim. `prepare` turns a group's settings (in the order of mlp.py), the lr and
// the number t of the step into the `numbers` that `step` uses.
struct Gradient {  // writes the gradient and takes no step
  static constexpr int STATES = 1;
  static void prepare(const double*, double, double, float*) {}
  static void step(Vec&, Vec, Vec*, const float*) {}
};

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
  if (std::is_same<Rule, Gradient>::value) {
    std::memcpy(p.state[0] + at, g, count * sizeof(float));
    return;
  }
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
    case 6: return act(Adadelta{});
    default: return act(Gradient{});
  }
}

}  // namespace
