// Whole training steps of a multilayer perceptron on a CPU; mlp.py compiles and calls it.
//
// Three products make up a step of a layer: outputs W x, the inputs' gradient W' g, and the
// weights' gradient g x'. Every number is computed by one thread and summed in one order, whatever
// the number of threads: the results are the same, bit for bit.

#include "mlp.hpp"
#include "mlp_simd.hpp"

namespace {

template <class Rule>
void take_steps(const Job& job, long threads, float* scratch, float* losses) {
  const Plan plan(job, scratch);
  double sums[EXAMPLES / WIDTH + 4];  // of the losses of each WIDTH examples, padded ones too
#pragma omp parallel num_threads(threads)
  {
#ifdef __SSE__
    // what is smaller than float32's normal numbers takes a hundred times as long
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
#endif
    Pass own(plan);
    for (long step = 0; step < job.steps; step++) {
      own.gather(step);
#pragma omp barrier
      for (long l = 0; l < job.count; l++) {
        own.forward(l);
#pragma omp barrier
      }
      own.loss(step, sums);
#pragma omp barrier
      for (long l = job.count - 1; l > 0; l--) {
        own.backward(l);
#pragma omp barrier
      }
      Numbers numbers;
      prepare<Rule>(job, step, numbers);
      own.template update<Rule>(numbers);
      if (omp_get_thread_num() == 0) {
        double total = 0;
        for (long m = 0; m < job.batch; m += WIDTH) total += sums[m / WIDTH];
        losses[step] = total / job.batch;
      }
#pragma omp barrier
    }
#ifdef __SSE__
    _mm_setcsr(mode);
#endif
  }
}

}  // namespace

extern "C" {

// floats that `mlp_steps` works in
int64_t mlp_scratch(const Layer* layers, int64_t count, int64_t batch) {
  Job job{};
  job.layers = layers, job.count = count, job.batch = batch;
  return Plan(job, nullptr).floats;
}

// Take a step with each of `steps` batches of indices of X and Y; losses: of each.
// rates: of each step, the lr of each group. decays: of each group, added to the gradient.
void mlp_steps(const Layer* layers, int64_t count, int64_t rule, double smoothing,
               const double* decays, const float* X, const int64_t* Y, const int64_t* batches,
               int64_t batch, int64_t steps, const double* rates, int64_t groups, int64_t threads,
               float* scratch, float* losses) {
  const Job job{layers, count, batch, steps, X, Y, batches, rates, groups, decays, smoothing};
  with_rule(rule, [&](auto kind) { take_steps<decltype(kind)>(job, threads, scratch, losses); });
}

}  // extern "C"
