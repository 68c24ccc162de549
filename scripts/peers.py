"""The same training job in other frameworks, one function each, and a worker that serves them.

A job: train on `train_x (n, 1, height, width)`, `train_y`, with Adam (lr 0.001), float32 and one
evaluation on the test set after each epoch. `python scripts/peers.py PEER` reads jobs from stdin,
one JSON object a line, and answers each with a line; it stays alive, so that rounds alternate.

Weights and biases start uniform in +-1/sqrt(fan_in) (Keras, JAX: zero biases; scikit-learn: its
own, which cannot be chosen).
"""

import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

CHANNELS, CNN_HIDDEN, LR = (32, 64, 64), 128, 1e-3


class Job(NamedTuple):
    """What every peer is asked; `model` is "cnn" or the hidden widths, such as "1000-1000"."""

    train_x: Any
    train_y: Any
    test_x: Any
    test_y: Any
    model: str
    epochs: int
    batch: int = 128
    device: str = "cpu"

    @property
    def widths(self) -> list[int]:
        """Units of the hidden linear layers."""
        return [CNN_HIDDEN] if self.model == "cnn" else [int(w) for w in self.model.split("-")]


Answer = tuple[list[float], float]  # seconds of each epoch, test accuracy after the last


def _torch_model(job: Job) -> Any:
    import torch

    from optbench import models

    torch.manual_seed(0)
    shape = job.train_x.shape[1:]
    if job.model == "cnn":
        built = models.cnn(shape, 10, channels=CHANNELS, hidden=[CNN_HIDDEN])
    else:
        built = models.mlp(shape, 10, hidden=job.widths)
    return built.to(job.device)


def _tensors(job: Job) -> list[Any]:
    import torch

    return [torch.from_numpy(a).to(job.device) for a in job[:4]]


def _accuracy(model: Any, x: Any, y: Any) -> float:
    import torch

    model.eval()
    with torch.no_grad():
        parts = zip(x.split(512), y.split(512), strict=True)
        right = sum((model(a).argmax(1) == b).sum() for a, b in parts)
    model.train()
    return float(right) / len(y)


def _timed(epochs: int, epoch: Callable[[], float]) -> Answer:
    """Call `epoch`, which trains once through the data and gives the accuracy, and time it."""
    seconds, accuracy = [], 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        accuracy = float(epoch())
        seconds.append(time.perf_counter() - start)
    return seconds, accuracy


def optbench(job: Job) -> Answer:
    """optbench itself: its loop, with an evaluation on the test set only, and with recorded steps
    from the beginning, as in a run of 1,000 steps or more."""
    import torch

    from optbench import Problem, initializers, losses, models, train
    from optbench.data import Dataset
    from optbench.device import choose

    device = choose(job.device)
    x, y, test_x, test_y = (torch.from_numpy(a) for a in job[:4])
    data = Dataset(x, y, x[:0], y[:0], test_x, test_y, 10, "benchmark")
    if job.model == "cnn":
        model = partial(models.cnn, channels=CHANNELS, hidden=[CNN_HIDDEN])
    else:
        model = partial(models.mlp, hidden=job.widths)
    problem = Problem(
        data, model, losses.cross_entropy, initializers.initialize, job.batch, epochs=job.epochs
    )
    adam = partial(torch.optim.Adam, lr=LR)
    updates = train(
        problem, adam, device=device, eval_train_examples=1, record=device.type == "cpu"
    )
    rows = [update.epoch for update in updates if update.epoch]
    ends = [float(row["total_seconds"] or 0) for row in rows]
    return list(np.diff(ends)), float(rows[-1]["test_accuracy"] or 0)


def tensors_and_slices(job: Job, *, onednn: bool) -> Answer:
    """The shortest loop in plain PyTorch: data as tensors, a permutation, fused Adam."""
    import torch
    import torch.nn.functional as F

    from optbench.device import route_products_to_onednn

    if onednn:
        route_products_to_onednn()
    x, y, test_x, test_y = _tensors(job)
    model = _torch_model(job)
    adam = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def epoch() -> float:
        for batch in torch.randperm(len(y), device=x.device).split(job.batch):
            adam.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            adam.step()
        return _accuracy(model, test_x, test_y)

    return _timed(job.epochs, epoch)


def tensor_loader(job: Job) -> Answer:
    """A DataLoader over a TensorDataset: what most scripts do."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y, test_x, test_y = _tensors(job)
    loader = DataLoader(TensorDataset(x, y), batch_size=job.batch, shuffle=True)
    return _loader_loop(job, loader, test_x, test_y, torch.device(job.device))


def tutorial(job: Job) -> Answer:
    """The PyTorch tutorials' loop: images transformed one by one, loss.item() at each step."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from optbench._torchvision import import_torchvision

    import_torchvision()  # also beside a CPU-only torch
    from torchvision import transforms

    low, high = job.train_x.min(), job.train_x.max()
    pixels = ((job.train_x - low) / (high - low) * 255).round().astype("uint8")
    mean, std = -low / (high - low), 1 / (high - low)
    convert = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((float(mean),), (float(std),))]
    )

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, i: int) -> Any:
            return convert(pixels[i].transpose(1, 2, 0)), int(job.train_y[i])

    loader = DataLoader(Images(), batch_size=job.batch, shuffle=True)
    return _loader_loop(job, loader, *_tensors(job)[2:], torch.device(job.device))


def _loader_loop(job: Job, loader: Any, test_x: Any, test_y: Any, device: Any) -> Answer:
    import torch
    import torch.nn.functional as F

    model = _torch_model(job)
    adam = torch.optim.Adam(model.parameters(), lr=LR)

    def epoch() -> float:
        total = 0.0
        for x, y in loader:
            adam.zero_grad()
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()
            adam.step()
            total += loss.item()
        return _accuracy(model, test_x, test_y)

    return _timed(job.epochs, epoch)


def lightning(job: Job) -> Answer:
    """Lightning's Trainer over a TensorDataset, with its CSVLogger."""
    import logging
    import warnings

    from optbench._torchvision import import_torchvision

    import_torchvision()  # torchmetrics imports it
    import lightning as L
    import torch
    import torch.nn.functional as F
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader, TensorDataset

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    x, y, test_x, test_y = (torch.from_numpy(a) for a in job[:4])
    ends: list[float] = []
    right: list[float] = []

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = _torch_model(job)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            hit = (self.net(batch[0]).argmax(1) == batch[1]).float().mean()
            self.log("accuracy", hit)

        def on_validation_epoch_end(self) -> None:
            ends.append(time.perf_counter())
            right.append(float(self.trainer.callback_metrics["accuracy"]))

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=LR)

    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=job.epochs,
            accelerator="gpu" if job.device.startswith("cuda") else "cpu",
            devices=1,
            logger=CSVLogger(folder),
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        start = time.perf_counter()
        train = DataLoader(TensorDataset(x, y), batch_size=job.batch, shuffle=True)
        trainer.fit(Module(), train, DataLoader(TensorDataset(test_x, test_y), batch_size=512))
    return list(np.diff([start, *ends])), right[-1]


def skorch(job: Job) -> Answer:
    """skorch's NeuralNetClassifier; partial_fit for each epoch."""
    import torch
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        _torch_model(job),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=LR,
        batch_size=job.batch,
        max_epochs=1,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        device=job.device,
    ).initialize()

    def epoch() -> float:
        net.partial_fit(job.train_x, job.train_y)
        return float((net.predict(job.test_x) == job.test_y).mean())

    return _timed(job.epochs, epoch)


def scikit_learn(job: Job) -> Answer:
    """MLPClassifier; its weights start at its own scale, and its L2 penalty is turned off."""
    from sklearn.neural_network import MLPClassifier

    if job.model == "cnn":
        raise NotImplementedError("scikit-learn has no convolutions")
    net = MLPClassifier(job.widths, alpha=0, batch_size=job.batch, learning_rate_init=LR)
    x, test_x = (a.reshape(len(a), -1) for a in (job.train_x, job.test_x))

    def epoch() -> float:
        net.partial_fit(x, job.train_y, classes=np.arange(10))
        return float(net.score(test_x, job.test_y))

    return _timed(job.epochs, epoch)


def keras(job: Job) -> Answer:
    """Keras 3's fit, on the backend that KERAS_BACKEND names."""
    import keras as K

    K.utils.set_random_seed(0)
    start = partial(K.initializers.VarianceScaling, 1 / 3, "fan_in", "uniform")
    first: list[Any] = [K.layers.Flatten()]
    if job.model == "cnn":
        first = []
        for n in CHANNELS:
            conv = K.layers.Conv2D(n, 3, padding="same", activation="relu")
            conv.kernel_initializer = start()
            first += [conv, K.layers.MaxPooling2D()]
        first.append(K.layers.Flatten())
    dense = [K.layers.Dense(w, "relu", kernel_initializer=start()) for w in job.widths]
    net = K.Sequential([*first, *dense, K.layers.Dense(10, kernel_initializer=start())])
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(K.optimizers.Adam(LR), loss)
    x, test_x = (a.transpose(0, 2, 3, 1).copy() for a in (job.train_x, job.test_x))

    def epoch() -> float:
        net.fit(x, job.train_y, batch_size=job.batch, epochs=1, verbose=0)
        logits = net.predict(test_x, batch_size=512, verbose=0)
        return float((logits.argmax(1) == job.test_y).mean())

    return _timed(job.epochs, epoch)


def jax_scan(job: Job) -> Answer:
    """JAX and optax with the whole epoch in one compiled scan; the last, smaller batch apart."""
    import jax
    import jax.numpy as jnp
    import optax

    rng = np.random.default_rng(0)
    images = [a.transpose(0, 2, 3, 1).copy() for a in (job.train_x, job.test_x)]
    x, test_x, y, test_y = (
        jnp.asarray(a) for a in (*images, job.train_y.astype("int32"), job.test_y.astype("int32"))
    )

    def layer(*shape: int) -> Any:
        bound = np.prod(shape[:-1]) ** -0.5
        return jnp.asarray(rng.uniform(-bound, bound, shape).astype("float32")), jnp.zeros(
            shape[-1]
        )

    convs, size, width = [], x.shape[1], x.shape[3]
    if job.model == "cnn":
        for n in CHANNELS:
            convs.append(layer(3, 3, width, n))
            width, size = n, size // 2
    sizes = [size * size * width, *job.widths, 10]
    dense = [layer(a, b) for a, b in pairwise(sizes)]

    def forward(params: Any, h: Any) -> Any:
        for w, b in params[0]:
            same = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
            h = jax.nn.relu(jax.lax.conv_general_dilated(h, w, (1, 1), "SAME", **same) + b)
            pool = (1, 2, 2, 1)
            h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, pool, pool, "VALID")
        h = h.reshape(len(h), -1)
        for w, b in params[1][:-1]:
            h = jax.nn.relu(h @ w + b)
        return h @ params[1][-1][0] + params[1][-1][1]

    def cost(params: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, x), y).mean()

    adam = optax.adam(LR)

    def step(carry: Any, batch: Any) -> Any:
        params, state = carry
        loss, grads = jax.value_and_grad(cost)(params, x[batch], y[batch])
        updates, state = adam.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    whole = len(y) // job.batch * job.batch

    @jax.jit
    def train(carry: Any, order: Any) -> Any:
        carry, losses = jax.lax.scan(step, carry, order[:whole].reshape(-1, job.batch))
        if whole < len(y):
            carry, _ = step(carry, order[whole:])
        return carry, losses

    right = jax.jit(lambda params: (forward(params, test_x).argmax(1) == test_y).mean())
    carry = ((convs, dense), adam.init((convs, dense)))

    def epoch() -> float:
        nonlocal carry
        carry, _ = train(carry, jnp.asarray(rng.permutation(len(y))))
        return float(right(carry[0]))

    return _timed(job.epochs, epoch)


def bound(job: Job) -> Answer:
    """Not a peer: one epoch's matrix products alone, of a multilayer perceptron."""
    import torch

    from optbench.device import choose

    if job.model == "cnn":
        raise NotImplementedError("the bound counts the products of linear layers")
    device = choose(job.device)
    sizes = [int(np.prod(job.train_x.shape[1:])), *job.widths, 10]
    products = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        x, g, w = (torch.randn(*s, device=device) for s in ((job.batch, a), (job.batch, b), (b, a)))
        products += [(x, w.t()), (g.t(), x)] + ([(g, w)] if i else [])
    outs = [torch.mm(*pair) for pair in products]

    def epoch() -> float:
        for _ in range(-(-len(job.train_y) // job.batch)):
            for pair, out in zip(products, outs, strict=True):
                torch.mm(*pair, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return float("nan")

    return _timed(job.epochs, epoch)


class Peer(NamedTuple):
    """A peer's title, function, the libraries it needs and its environment."""

    title: str
    run: Callable[[Job], Answer]
    needs: tuple[str, ...] = ("torch",)
    env: Mapping[str, str] = MappingProxyType({})
    gpu: bool = True  # runs on CUDA when asked


PEERS = {
    "optbench": Peer("optbench", optbench),
    "tutorial": Peer("tutorial loop: DataLoader, transforms, loss.item()", tutorial),
    "loader": Peer("DataLoader over a TensorDataset", tensor_loader),
    "slices_mkl": Peer("tensors and slices, fused Adam", partial(tensors_and_slices, onednn=False)),
    "slices": Peer("the same with oneDNN's products", partial(tensors_and_slices, onednn=True)),
    "lightning": Peer("Lightning, CSVLogger", lightning, ("lightning",)),
    "skorch": Peer("skorch", skorch, ("skorch",)),
    "keras_torch": Peer("Keras 3 on torch", keras, ("keras",), {"KERAS_BACKEND": "torch"}),
    "keras_jax": Peer("Keras 3 on JAX", keras, ("keras", "jax"), {"KERAS_BACKEND": "jax"}, False),
    "jax": Peer("JAX and optax, an epoch in one jit scan", jax_scan, ("jax", "optax"), {}, False),
    "sklearn": Peer("scikit-learn MLPClassifier", scikit_learn, ("sklearn",), {}, False),
    "bound": Peer("bound: the matrix products alone", bound),
}


def missing(peer: Peer) -> list[str]:
    """The libraries it needs that are not installed."""
    return [name for name in peer.needs if importlib.util.find_spec(name) is None]


def serve(peer: Peer, jobs: Iterator[str]) -> None:
    """Answer each job; only the answers go to stdout, so that a library's print cannot mix in."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in jobs:
        asked = json.loads(line)
        arrays = np.load(asked.pop("data"))
        names = ("train_x", "train_y", "test_x", "test_y")
        examples = asked.pop("examples", None)
        given = {n: arrays[n][:examples] if n[:5] == "train" else arrays[n] for n in names}
        start = time.perf_counter()
        try:
            seconds, accuracy = peer.run(Job(**given, **asked))
            answer: dict[str, Any] = {"seconds": seconds, "accuracy": accuracy}
            answer["total"] = time.perf_counter() - start
        except Exception as error:  # reported as this peer's result: the others go on
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(PEERS[sys.argv[1]], iter(sys.stdin.readline, ""))
