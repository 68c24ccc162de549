// Whole training steps of a multilayer perceptron on a CPU; mlp.py compiles and calls this file.
//
// A step of a layer is three products: its outputs W x, the gradient of its inputs W' g, and the
// gradient of its weights g x'. Each number is computed by one thread, in an order of sums that
// does not depend on the number of threads, so that the results are the same bit for bit.

#include "passes.hpp"

namespace {

template <class Rule>
void take_steps(const Job& job, long threads, float* scratch, float* losses) {
  const Plan plan(job, scratch);
  double sums[EXAMPLES / WIDTH + 4];  // losses of WIDTH examples each, with padded examples
#pragma omp parallel num_threads(threads)
  {
#ifdef __SSE__
    // subnormal numbers, which take a hundred times as long, count as 0
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

// Return the number of floats of scratch memory that `mlp_steps` needs.
int64_t mlp_scratch(const Job* job) { return Plan(*job, nullptr).floats; }

// Take the steps of a job by a rule of rules.hpp, and write each step's loss.
void mlp_steps(const Job* job, int64_t rule, int64_t threads, float* scratch, float* losses) {
  with_rule(rule, [&](auto kind) { take_steps<decltype(kind)>(*job, threads, scratch, losses); });
}

}  // extern "C"
