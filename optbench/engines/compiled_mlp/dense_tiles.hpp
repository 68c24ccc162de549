// Steps by tiles of the CPU. While the tiles multiply, the vectors get the next weights ready, or
// update the last ones. The weights and their state lie in blocks during a call, one after another
// in memory.

#pragma once

#include "tiles.hpp"

#ifdef TILES

#include <atomic>
#include <vector>

namespace {

// A block of weights: a row at each call.
template <class Rule>
struct Updating {
  float* blocks[1 + Rule::STATES] = {};
  const float* gradient = nullptr;
  const float* numbers = nullptr;
  long rows = 0, columns = 0;  // that are no padding
  long row = 0;

  // not inlined: copies of it could round otherwise, and which one came to a row would be chance
  __attribute__((noinline)) void operator()() {
    if (row >= rows) return;
    const long begin = row++ * CHUNK;
    for (long j = 0; j < CHUNK; j += SIDE) {
      const long at = begin + j;
      Vec values = load(blocks[0] + at), state[3] = {};
      for (int i = 0; i < Rule::STATES; i++) state[i] = load(blocks[1 + i] + at);
      const Vec g = decayed(load(gradient + at), values, numbers);
      Rule::step(values, g, state, numbers);
      // padding stays 0, whatever a rule makes of it
      const __mmask16 mask = first(columns - j);
      _mm512_mask_storeu_ps(blocks[0] + at, mask, (__m512)values);
      for (int i = 0; i < Rule::STATES; i++)
        _mm512_mask_storeu_ps(blocks[1 + i] + at, mask, (__m512)state[i]);
    }
  }
};

// What one thread does of a step. Between two of these calls all threads wait for each other.
class Tiles {
 public:
  // The phases of a step, of each of which it is counted what is taken; the last three are of each
  // layer.
  enum : long {
    GATHER,
    GATHER_AGAIN,
    LOSS,
    FORWARD,
    BACKWARD = FORWARD + LAYERS,
    UPDATE = BACKWARD + LAYERS
  };
  static constexpr long PHASES = UPDATE + LAYERS;

  // How a batch is laid out, and where. by example: [example][unit], else [unit][example].
  struct Plan {
    const Job& job;
    long padded;              // examples
    Factor inputs[LAYERS];    // second factor of the outputs
    Factor examples[LAYERS];  // the same inputs, second factor of the weights' gradient
    Factor outer[LAYERS];     // the outputs' gradient, first factor of the weights' gradient
    Factor inner[LAYERS];     // the same, first factor of the inputs' gradient
    float* outputs[LAYERS];   // of hidden layers, in blocks by example
    float* biases[LAYERS];    // the biases' gradient: of each CHUNK examples
    float *logits, *gradient;  // of the last layer: of each CHUNK examples
    float* weights[LAYERS][4];  // values and state, in blocks
    long floats;
    struct alignas(64) Count {
      std::atomic<long> taken{0};
    };
    long threads;
    std::vector<Count> counts;  // of each phase of a step, of each thread's items

    Plan(const Job& job, float* scratch, long threads)
        : job(job), padded(up(job.batch, CHUNK)), threads(threads), counts(PHASES * threads) {
      float* next = scratch;
      auto take = [&](long n) { return std::exchange(next, next + up(n, LINE)); };
      auto factor = [&](long sides, long depth) {
        return Factor(take(Factor::floats(sides, depth)), depth);
      };
      for (long l = 0; l < job.count; l++) {
        const Layer& layer = job.layers[l];
        const long in = up(layer.in, CHUNK), out = up(layer.out, CHUNK);
        inputs[l] = factor(padded, in);
        examples[l] = factor(in, padded);
        outer[l] = factor(out, padded);
        inner[l] = factor(padded, out);
        outputs[l] = take(padded * out);
        biases[l] = take(padded / CHUNK * out);
        weights[l][0] = take(in * out);
        for (int i = 0; i < 3; i++) weights[l][1 + i] = take(layer.weight.state[i] ? in * out : 0);
      }
      logits = take(padded * job.layers[job.count - 1].out);
      gradient = take(padded * job.layers[job.count - 1].out);
      floats = next - scratch;
    }
  };

  explicit Tiles(Plan& plan) : plan(plan), job(plan.job) {}

  void begin() {
    begin_tiles();
    move([](float* block, const float* own, long count) {
      std::memcpy(block, own, count * sizeof(float));
      std::memset(block + count, 0, (CHUNK - count) * sizeof(float));
    });
  }

  void end() {
    if (job.learns)
      move([](const float* block, float* own, long count) {
        std::memcpy(own, block, count * sizeof(float));
      });
    _tile_release();
  }

  void gather(long step) {
    const int64_t* batch = job.chosen(step);
    const long n = job.layers[0].in, rows = plan.padded / CHUNK;
    const long piece = 8 * CHUNK, pieces = up(n, piece) / piece;  // 1 KB of each example
    alignas(64) float block[CELLS], turned[CELLS];
    auto read = [&](long m, long k) {
      for (long i = 0; i < CHUNK; i++)
        for (long j = 0; j < CHUNK; j += SIDE) {
          const bool real = m + i < job.real(step);
          const float* from = real ? job.X + batch[m + i] * n + k + j : nullptr;
          _mm512_store_ps(block + i * CHUNK + j,
                          _mm512_maskz_loadu_ps(real ? first(n - k - j) : 0, from));
        }
    };
    reset(UPDATE, PHASES);
    if (!job.learns) reset(LOSS, FORWARD);
    share(GATHER, rows, pieces, [&](long row, long group) {
      for (long k = group * piece; k < std::min(n, (group + 1) * piece); k += CHUNK) {
        read(row * CHUNK, k);
        turn(block, turned);
        pack_columns(turned, plan.inputs[0], row * CHUNK, k);
        if (job.learns && !has_few_weights(0))
          pack_columns(block, plan.examples[0], k, row * CHUNK);
      }
    });
    // each thread packs the inputs that are its own in `update`
    if (job.learns && has_few_weights(0))
      share(GATHER_AGAIN, up(n, CHUNK) / CHUNK, rows, [&](long row, long group) {
        read(group * CHUNK, row * CHUNK);
        pack_columns(block, plan.examples[0], row * CHUNK, group * CHUNK);
      });
  }

  void forward(long l) {
    const Layer& layer = job.layers[l];
    const long n = layer.out;
    auto finish = [&](float* block, long r, long m) {
      for (long i = 0; i < CHUNK; i++) {
        const bool real = r + i < n;
        const float bias = real && layer.bias.values ? layer.bias.values[r + i] : 0.f;
        for (float* at = block + i * CHUNK; at < block + (i + 1) * CHUNK; at += SIDE)
          store(at, real ? activate(layer.activation, layer.slope, load(at) + bias) : Vec{});
      }
      if (l + 1 == job.count) {
        std::memcpy(plan.logits + m * n + r * CHUNK, block,
                    std::min(CHUNK, n - r) * CHUNK * sizeof(float));
        return;
      }
      pack_columns(block, plan.inputs[l + 1], m, r);
      if (!job.learns) return;
      float* turned = outputs(l, r, m);
      turn(block, turned);
      pack_columns(turned, plan.examples[l + 1], r, m);
    };
    products<false>(FORWARD + l, l, plan.inputs[l], layer.out, layer.in, finish);
  }

  void loss(long step, Sums& sums) {
    const long l = job.count - 1, n = job.layers[l].out;
    alignas(64) float block[CELLS], turned[CELLS];
    if (!job.learns) reset(GATHER, LOSS), reset(FORWARD, BACKWARD);
    share(LOSS, plan.padded / CHUNK, 1, [&](long row, long) {
      const long m = row * CHUNK;
      for (long h = 0; h < CHUNK; h += WIDTH) {
        const float* logits = plan.logits + m * n + h;
        sums.losses[(m + h) / WIDTH] =
            cross_entropy(job, step, m + h, logits, plan.gradient + m * n + h, CHUNK);
        if (!job.learns) sums.correct[(m + h) / WIDTH] = correct(job, step, m + h, logits, CHUNK);
      }
      if (!job.learns) return;
      for (long r = 0; r < n; r += CHUNK) {
        const long real = std::min(CHUNK, n - r);
        std::memcpy(block, plan.gradient + m * n + r * CHUNK, real * CHUNK * sizeof(float));
        std::memset(block + real * CHUNK, 0, (CHUNK - real) * CHUNK * sizeof(float));
        turn(block, turned);
        keep(l, turned, block, r, m);
      }
    });
  }

  // The gradient of the outputs of layer l - 1, before their activation.
  void backward(long l) {
    const Layer &layer = job.layers[l], &before = job.layers[l - 1];
    alignas(64) float turned[CELLS];
    auto finish = [&](float* block, long r, long m) {
      const float* y = outputs(l - 1, r, m);
      for (long i = 0; i < CELLS; i += SIDE) {
        const Vec slope = derivative(before.activation, before.slope, load(y + i));
        store(block + i, load(block + i) * slope);
      }
      turn(block, turned);
      keep(l - 1, block, turned, r, m);
    };
    products<true>(BACKWARD + l, l, plan.inner[l], layer.in, layer.out, finish);
  }

  template <class Rule>
  void update(const Numbers numbers) {
    const long chunks = plan.padded / CHUNK;
    // so many rows of blocks at once as share what they are multiplied by
    const long tall = std::min(4L, up(chunks, GROUP / CHUNK) / (GROUP / CHUNK));
    const long each = up(CHUNK, chunks * SLOTS) / (chunks * SLOTS);
    alignas(64) float gradients[2][CELLS];
    Updating<Rule> last;
    bool other = false;
    auto finish = [&] {
      while (last.row < last.rows) last();
    };
    reset(0, UPDATE);
    for (long l = job.count - 1; l >= 0; l--) {
      const Layer& layer = job.layers[l];
      const long across = up(layer.in, CHUNK), high = tall * CHUNK;
      const bool by_input = has_few_weights(l);
      const long rows = by_input ? across / CHUNK : up(layer.out, high) / high;
      share(UPDATE + l, rows, 1, [&](long row, long) {
        const long left = by_input ? row * CHUNK : 0, right = by_input ? left + CHUNK : across;
        const long begin = by_input ? 0 : row * high;
        const long end = by_input ? layer.out : std::min(layer.out, begin + high);
        for (long k = left; k < right; k += CHUNK)
          for (long r = begin; r < end; r += CHUNK) {
            float* gradient = gradients[other];
            other = !other;
            multiply(gradient, plan.outer[l].tile(r, 0), plan.outer[l].stride(),
                     plan.examples[l].tile(k, 0), plan.examples[l].stride(), chunks, true, [&] {
                       for (long i = 0; i < each; i++) last();
                     });
            finish();
            for (int i = 0; i <= Rule::STATES; i++)
              last.blocks[i] = plan.weights[l][i] + r * across + k * CHUNK;
            last.gradient = gradient, last.numbers = numbers[l][0];
            last.rows = std::min(CHUNK, layer.out - r), last.columns = layer.in - k, last.row = 0;
          }
        if (!layer.bias.values || left > 0) return;
        alignas(64) float sums[CHUNK];
        for (long r = begin; r < end; r += CHUNK) {
          std::memset(sums, 0, sizeof sums);
          for (long m = 0; m < plan.padded; m += CHUNK)
            for (long j = 0; j < CHUNK; j += SIDE)
              store(sums + j, load(sums + j) + load(bias(l, r, m) + j));
          ::update<Rule>(layer.bias, r, sums, std::min(CHUNK, layer.out - r), numbers[l][1]);
        }
      });
    }
    finish();
  }

 private:
  // Of a layer with few weights each thread has examples of its own, and inputs in `update`; of
  // others, outputs (inputs in `backward`): what is more should not move between threads.
  bool has_few_weights(long l) const {
    const Layer& layer = job.layers[l];
    return layer.in * layer.out <= 1 << 18 && plan.threads <= plan.padded / CHUNK;
  }

  // Call act(row, group) with each of these items. A thread has rows of its own, the same at all
  // steps, so that their memory stays near; after them it takes what is left of the others'.
  template <class Act>
  void share(long phase, long rows, long groups, Act act) {
    for (Item item = take(phase, rows, groups); item.found; item = take(phase, rows, groups))
      act(item.row, item.group);
  }

  struct Item {
    bool found;
    long row, group;
  };

  Item take(long phase, long rows, long groups) {
    for (; tried < plan.threads; tried++) {
      const long owner = (omp_get_thread_num() + tried) % plan.threads;
      const long from = rows * owner / plan.threads;
      const long own = rows * (owner + 1) / plan.threads - from;
      const long n = plan.counts[phase * plan.threads + owner].taken++;
      if (n < own * groups) return {true, from + n % own, n / own};
    }
    tried = 0;
    return {false, 0, 0};
  }

  // Of phases that all threads have left.
  void reset(long from, long to) {
    if (omp_get_thread_num() == 0)
      for (long i = from * plan.threads; i < to * plan.threads; i++) plan.counts[i].taken = 0;
  }

  // Multiply the weights of layer l with a factor of examples, and call finish(block, r, m) with
  // the sums of CHUNK of the `n` units from r on and CHUNK examples from m on. BACK: by example.
  template <bool BACK, class Finish>
  void products(long phase, long l, const Factor& examples, long n, long depth, Finish finish) {
    alignas(64) static thread_local Part panels[2][2 * (PANEL / CHUNK) * TILE];
    alignas(64) float blocks[GROUP / CHUNK][CELLS];
    const long row_w = (PANEL / CHUNK) * TILE, across = up(job.layers[l].in, CHUNK);
    const long rows = up(n, CHUNK) / CHUNK;
    const bool by_example = has_few_weights(l);
    long group = std::min(GROUP, plan.padded);
    if (by_example) group = std::min(group, up(plan.padded / plan.threads, CHUNK));
    // smaller ones where threads would have none
    while (group > CHUNK && rows * (plan.padded / group) < 2 * plan.threads)
      group = up(group / 2, CHUNK);
    const long groups = up(plan.padded, group) / group;
    auto another = [&] {
      if (!by_example) return take(phase, rows, groups);
      const Item item = take(phase, groups, rows);
      return Item{item.found, item.group, item.row};
    };
    auto ready = [&](Item item, long d, int panel) {
      const long left = item.found ? std::min(PANEL, up(depth - d, CHUNK)) : 0;
      const long r = item.row * CHUNK, at = BACK ? d * across + r * CHUNK : r * across + d * CHUNK;
      return Packing<BACK>{plan.weights[l][0] + at, BACK ? across * CHUNK : CELLS, panels[panel],
                           left};
    };
    int panel = 0;
    Item item = another();
    for (auto now = ready(item, 0, panel); now.left;) now();
    while (item.found) {
      const long from = item.group * group, to = std::min(plan.padded, from + group);
      Item following = item;
      for (long d = 0; d < depth; d += PANEL, panel ^= 1) {
        const bool last = d + PANEL >= depth;
        if (last) following = another();
        auto next = ready(following, last ? 0 : d + PANEL, panel ^ 1);
        const long chunks = up(std::min(PANEL, depth - d), CHUNK) / CHUNK;
        const long slots = (to - from) / CHUNK * chunks * SLOTS;
        const long each = up(next.left, slots) / slots;
        auto meanwhile = [&] {
          for (long i = 0; i < each; i++) next();
        };
        for (long m = from; m < to; m += CHUNK) {
          float* block = blocks[(m - from) / CHUNK];
          const Part *w = panels[panel], *x = examples.tile(m, d);
          if (BACK) multiply(block, x, examples.stride(), w, row_w, chunks, d == 0, meanwhile);
          else multiply(block, w, row_w, x, examples.stride(), chunks, d == 0, meanwhile);
        }
        while (next.left) next();
      }
      for (long m = from; m < to; m += CHUNK)
        finish(blocks[(m - from) / CHUNK], item.row * CHUNK, m);
      item = following;
    }
  }

  // The gradient of the outputs of layer l: of CHUNK units from r on, CHUNK examples from m on.
  void keep(long l, const float* by_example, const float* by_unit, long r, long m) {
    pack_rows(by_unit, plan.outer[l], r, m);
    if (l > 0) pack_rows(by_example, plan.inner[l], m, r);
    for (long j = 0; j < CHUNK; j += SIDE) {
      Vec sum{};
      for (long i = 0; i < CHUNK; i++) sum += load(by_example + i * CHUNK + j);
      store(bias(l, r, m) + j, sum);
    }
  }

  float* outputs(long l, long r, long m) const {
    return plan.outputs[l] + m * up(job.layers[l].out, CHUNK) + r * CHUNK;
  }

  float* bias(long l, long r, long m) const {
    return plan.biases[l] + m / CHUNK * up(job.layers[l].out, CHUNK) + r;
  }

  // Call act(row of a block, own place, how many are no padding) for all weights and state.
  template <class Act>
  void move(Act act) {
    for (long l = 0; l < job.count; l++) {
      const Layer& layer = job.layers[l];
      const long across = up(layer.in, CHUNK);
      const Range own(up(layer.out, CHUNK), CHUNK);
      float* const all[] = {layer.weight.values, layer.weight.state[0], layer.weight.state[1],
                            layer.weight.state[2]};
      for (int i = 0; i < 4; i++)
        for (long r = own.from; all[i] && r < own.to; r++)
          for (long k = 0; k < layer.in; k += CHUNK)
            act(plan.weights[l][i] + (r / CHUNK * across + k) * CHUNK + r % CHUNK * CHUNK,
                all[i] + std::min(r, layer.out - 1) * layer.in + k,
                r < layer.out ? std::min(CHUNK, layer.in - k) : 0);
    }
  }

  Plan& plan;
  const Job& job;
  long tried = 0;  // threads whose items of this phase are all taken
};

}  // namespace
#endif
