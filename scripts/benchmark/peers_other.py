"""The benchmark's job in scikit-learn, Keras 3 and JAX.

Weights start uniform in +-1/sqrt(fan_in) with zero biases; scikit-learn's own start cannot be
chosen.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from scripts.benchmark.job import (
    CHANNELS,
    DROPOUT,
    INPUT_DROPOUT,
    LR,
    OWN_LR,
    UNITS,
    Answer,
    Job,
    timed,
)


def scikit_learn(job: Job) -> Answer:
    """Train by MLPClassifier, with its own initial scale and no L2 penalty."""
    from sklearn.neural_network import MLPClassifier

    if job.kind != "mlp" or "+" in job.model:
        raise NotImplementedError("scikit-learn has none of its parts")
    net = MLPClassifier(job.widths, alpha=0, batch_size=job.batch, learning_rate_init=LR)
    x, test_x = (a.reshape(len(a), -1) for a in (job.train_x, job.test_x))

    def epoch() -> float:
        net.partial_fit(x, job.train_y, classes=np.arange(10))
        return float(net.score(test_x, job.test_y))

    return timed(job.epochs, epoch)


def _channels_last(x: np.ndarray) -> np.ndarray:
    """Return images (n, height, width, channels); other inputs as they are."""
    return x.transpose(0, 2, 3, 1).copy() if x.ndim == 4 else x


def keras(job: Job) -> Answer:
    """Train by Keras 3's fit, on the backend that KERAS_BACKEND names."""
    import keras as K

    K.utils.set_random_seed(0)
    start = partial(K.initializers.VarianceScaling, 1 / 3, "fan_in", "uniform")
    if job.kind == "gpt":
        raise NotImplementedError("Keras has no GPT of its own")
    first: list[Any] = [K.layers.Flatten()]
    if job.kind == "lstm":
        first = [K.layers.LSTM(UNITS)]
    if job.kind == "cnn":
        first = []
        for n in CHANNELS:
            conv = K.layers.Conv2D(n, 3, padding="same", activation="relu")
            conv.kernel_initializer = start()
            first += [conv, K.layers.MaxPooling2D()]
        first.append(K.layers.Flatten())
    if job.has("dropout"):
        first.append(K.layers.Dropout(INPUT_DROPOUT))
    dense: list[Any] = []
    for w in job.widths:
        dense.append(K.layers.Dense(w, kernel_initializer=start(), use_bias=not job.has("norm")))
        dense += (
            [K.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)] if job.has("norm") else []
        )
        dense.append(K.layers.ReLU())
        dense += [K.layers.Dropout(DROPOUT)] if job.has("dropout") else []
    net = K.Sequential([*first, *dense, K.layers.Dense(job.classes, kernel_initializer=start())])
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    lion = K.optimizers.Lion(OWN_LR, beta_1=0.9, beta_2=0.99)
    net.compile(lion if job.has("own") else K.optimizers.Adam(LR), loss)
    x, test_x = map(_channels_last, (job.train_x, job.test_x))

    def epoch() -> float:
        net.fit(x, job.train_y, batch_size=job.batch, epochs=1, verbose=0)
        logits = net.predict(test_x, batch_size=512, verbose=0)
        return float((logits.argmax(1) == job.test_y).mean())

    return timed(job.epochs, epoch)


def jax_scan(job: Job) -> Answer:
    """Train by JAX and optax: an epoch in one compiled scan, the last batch apart.

    The steps of a CNN are compiled one by one: XLA runs convolutions in a scan on one core.
    """
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)
    if job.kind in ("lstm", "gpt"):
        raise NotImplementedError("JAX has no layers of its own for it")
    table = job.train_x.ndim == 2
    images = [_channels_last(a[:, :, None, None] if table else a) for a in job[:4:2]]
    x, test_x, y, test_y = (
        jnp.asarray(a) for a in (*images, job.train_y.astype("int32"), job.test_y.astype("int32"))
    )

    def layer(*shape: int) -> Any:
        bound = np.prod(shape[:-1]) ** -0.5
        return jnp.asarray(rng.uniform(-bound, bound, shape).astype("float32")), jnp.zeros(
            shape[-1]
        )

    convs, size, width = [], x.shape[1], x.shape[3]
    if job.kind == "cnn":
        for n in CHANNELS:
            convs.append(layer(3, 3, width, n))
            width, size = n, size // 2
    sizes = [size * size * width, *job.widths, job.classes]
    dense = [layer(a, b) for a, b in pairwise(sizes)]
    norms = [(jnp.ones(n), jnp.zeros(n)) for n in job.widths] if job.has("norm") else []

    def dropped(key: Any, h: Any, p: float, place: int) -> Any:
        if key is None or not job.has("dropout"):
            return h
        keep = jax.random.bernoulli(jax.random.fold_in(key, place), 1 - p, h.shape)
        return jnp.where(keep, h / (1 - p), 0.0)

    def forward(params: Any, running: Any, h: Any, key: Any) -> Any:
        """Return the logits and the running statistics. key: None in evaluation."""
        for w, b in params[0]:
            same = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
            h = jax.nn.relu(jax.lax.conv_general_dilated(h, w, (1, 1), "SAME", **same) + b)
            pool = (1, 2, 2, 1)
            h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, pool, pool, "VALID")
        h = dropped(key, h.reshape(len(h), -1), INPUT_DROPOUT, 0)
        moved = []
        for place, (w, b) in enumerate(params[1][:-1]):
            h = h @ w + b
            if norms:
                mean, var = (h.mean(0), h.var(0)) if key is not None else running[place]
                before = running[place]
                moved.append((0.9 * before[0] + 0.1 * mean, 0.9 * before[1] + 0.1 * var))
                scale, shift = params[2][place]
                h = (h - mean) * jax.lax.rsqrt(var + 1e-5) * scale + shift
            h = dropped(key, jax.nn.relu(h), DROPOUT, place + 1)
        return h @ params[1][-1][0] + params[1][-1][1], moved

    def cost(params: Any, running: Any, x: Any, y: Any, key: Any) -> Any:
        logits, moved = forward(params, running, x, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), moved

    optimizer = optax.lion(OWN_LR) if job.has("own") else optax.adam(LR)

    def step(carry: Any, batch: Any) -> Any:
        params, state, running, key = carry
        key, own = jax.random.split(key)
        grad = jax.value_and_grad(cost, has_aux=True)
        (loss, running), grads = grad(params, running, x[batch], y[batch], own)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, running, key), loss

    whole = len(y) // job.batch * job.batch

    @jax.jit
    def train(carry: Any, order: Any) -> Any:
        carry, losses = jax.lax.scan(step, carry, order[:whole].reshape(-1, job.batch))
        if whole < len(y):
            carry, _ = step(carry, order[whole:])
        return carry, losses

    single = jax.jit(step)

    def train_by_step(carry: Any, order: Any) -> Any:
        losses = []
        for start in range(0, len(y), job.batch):
            carry, loss = single(carry, order[start : start + job.batch])
            losses.append(loss)
        return carry, losses

    @jax.jit
    def right(params: Any, running: Any) -> Any:
        return (forward(params, running, test_x, None)[0].argmax(1) == test_y).mean()

    params = convs, dense, norms
    running = [(jnp.zeros(n), jnp.ones(n)) for n in job.widths] if norms else []
    carry = (params, optimizer.init(params), running, jax.random.key(0))

    def epoch() -> float:
        nonlocal carry
        take = train_by_step if job.kind == "cnn" else train
        carry, _ = take(carry, jnp.asarray(rng.permutation(len(y))))
        return float(right(carry[0], carry[2]))

    return timed(job.epochs, epoch)
