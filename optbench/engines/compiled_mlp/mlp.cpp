// Whole training steps and evaluations of a multilayer perceptron on a CPU; dense.py compiles and
// calls it.
//
// Three products make up a step of a layer: outputs W x, the inputs' gradient W' g, and the
// weights' gradient g x'. Every number is computed by one thread and summed in one order, whatever
// the number of threads: the results are the same, bit for bit.

#include "mlp.hpp"
#include "dense_tiles.hpp"
#include "mlp_simd.hpp"

namespace {

// Call act(way) in each thread.
template <class Way, class Act>
void in_threads(const Job& job, long threads, float* scratch, Act act) {
  typename Way::Plan plan(job, scratch, threads);
#pragma omp parallel num_threads(threads)
  {
#ifdef __SSE__
    // what is smaller than float32's normal numbers takes a hundred times as long
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040);
#endif
    Way own(plan);
    own.begin();
#pragma omp barrier
    act(own);
    own.end();
#ifdef __SSE__
    _mm_setcsr(mode);
#endif
  }
}

// The model's outputs, and their losses.
template <class Way>
void look(const Job& job, Way& own, long step, Sums& sums) {
  own.gather(step);
#pragma omp barrier
  for (long l = 0; l < job.count; l++) {
    own.forward(l);
#pragma omp barrier
  }
  own.loss(step, sums);
#pragma omp barrier
}

template <class Way, class Rule>
void take_steps(const Job& job, long threads, float* scratch, float* losses) {
  Sums sums;
  in_threads<Way>(job, threads, scratch, [&](Way& own) {
    for (long step = 0; step < job.steps; step++) {
      look(job, own, step, sums);
      for (long l = job.count - 1; l > 0; l--) {
        own.backward(l);
#pragma omp barrier
      }
      Numbers numbers;
      prepare<Rule>(job, step, numbers);
      own.template update<Rule>(numbers);
      if (omp_get_thread_num() == 0) {
        double total = 0;
        for (long m = 0; m < job.batch; m += WIDTH) total += sums.losses[m / WIDTH];
        losses[step] = total / job.batch;
      }
#pragma omp barrier
    }
  });
}

// The sums of the losses and of the correct answers.
template <class Way>
void take_sums(const Job& job, long threads, float* scratch, double* loss, double* hits) {
  Sums sums;
  *loss = *hits = 0;
  in_threads<Way>(job, threads, scratch, [&](Way& own) {
    for (long step = 0; step < job.steps; step++) {
      look(job, own, step, sums);
      if (omp_get_thread_num() == 0)
        for (long m = 0; m < job.real(step); m += WIDTH)
          *loss += sums.losses[m / WIDTH], *hits += sums.correct[m / WIDTH];
    }
  });
}

#ifndef TILES
typedef Vectors Tiles;
#endif

// Whether tiles are worth it: they are padded, and weights and inputs must be cut into parts first.
// It goes by sizes alone, so that steps are the same however many are taken at once.
bool by_tiles([[maybe_unused]] const Job& job) {
#ifdef TILES
  long weights = 0;
  for (long l = 0; l < job.count; l++) {
    const Layer& layer = job.layers[l];
    if (std::min(layer.in, layer.out) >= 64) weights += layer.in * layer.out;
  }
  return job.batch >= 64 && weights >= 65536 && tiles_allowed();
#else
  return false;
#endif
}

}  // namespace

extern "C" {

// floats that `dense_steps` and `dense_sums` work in
int64_t dense_scratch(const Layer* layers, int64_t count, int64_t batch) {
  Job job{};
  job.layers = layers, job.count = count, job.batch = batch;
  if (by_tiles(job)) return Tiles::Plan(job, nullptr, 1).floats;
  return Vectors::Plan(job, nullptr, 1).floats;
}

// Take a step with each of `steps` batches of indices of X and Y; losses: of each.
// rates: of each step, the lr of each group. decays: of each group, added to the gradient.
void dense_steps(const Layer* layers, int64_t count, int64_t rule, double smoothing,
                 const double* decays, const float* X, const int64_t* Y, const int64_t* batches,
                 int64_t batch, int64_t steps, const double* rates, int64_t groups, int64_t threads,
                 float* scratch, float* losses) {
  const Job job{layers, count,  batch,  steps,     X,    Y,
                batches, rates, groups, decays, smoothing, true, batch * steps};
  with_rule(rule, [&](auto kind) {
    typedef decltype(kind) Rule;
    if (by_tiles(job)) take_steps<Tiles, Rule>(job, threads, scratch, losses);
    else take_steps<Vectors, Rule>(job, threads, scratch, losses);
  });
}

// Measure the model on the `examples` of X and Y, `batch` of them at once. indices: 0, 1, ... up to
// their number. sums: of the losses, of the correct answers. Returns 0, and does nothing, where it
// would not be by tiles: vectors are no faster than torch.
int64_t dense_sums(const Layer* layers, int64_t count, double smoothing, const float* X,
                   const int64_t* Y, const int64_t* indices, int64_t examples, int64_t batch,
                   int64_t threads, float* scratch, double* sums) {
  Job job{};
  job.layers = layers, job.count = count, job.smoothing = smoothing;
  job.X = X, job.Y = Y, job.batches = indices;
  job.examples = examples, job.batch = batch, job.steps = up(examples, batch) / batch;
#ifdef TILES
  if (by_tiles(job)) {
    take_sums<Tiles>(job, threads, scratch, sums, sums + 1);
    return 1;
  }
#endif
  return 0;
}

}  // extern "C"
