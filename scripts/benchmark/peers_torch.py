"""The benchmark's job in PyTorch: optbench, loops, Lightning, skorch, the bound.

Weights and biases start uniform in +-1/sqrt(fan_in).
"""

import tempfile
import time
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from scripts.benchmark.job import (
    CHANNELS,
    CNN_HIDDEN,
    DROPOUT,
    INPUT_DROPOUT,
    LR,
    OWN_LR,
    UNITS,
    Answer,
    Job,
    timed,
)


def _torch_model(job: Job) -> Any:
    import torch

    from optbench import models

    torch.manual_seed(0)
    shape = job.train_x.shape[1:]
    built = _network(job)(shape, job.classes)
    for layer in built.modules():  # torch's own, which other programs use
        for name, child in layer.named_children():
            if isinstance(child, models.Dropout):
                setattr(layer, name, torch.nn.Dropout(child.p))
    return built.to(job.device)


def _network(job: Job) -> Any:
    """Return the function that builds optbench's model."""
    from optbench import models

    if job.kind == "lstm":
        return partial(models.lstm, hidden=UNITS)
    if job.kind == "gpt":
        return partial(models.gpt, vocabulary=job.classes, per_token=True)
    if job.kind == "tabular":
        return partial(models.tabular_mlp, hidden=job.widths)
    parts: dict[str, Any] = {"batch_norm": job.has("norm")}
    if job.has("dropout"):
        parts |= {"dropout": DROPOUT, "input_dropout": INPUT_DROPOUT}
    if job.kind == "cnn":
        return partial(models.cnn, channels=CHANNELS, hidden=[CNN_HIDDEN], **parts)
    return partial(models.mlp, hidden=job.widths, **parts)


def _optimizer(job: Job, **settings: Any) -> Any:
    """Return the job's optimizer, without its parameters. settings: of torch's Adam."""
    import torch

    class Lion(torch.optim.Optimizer):
        """Lion (Chen et al. 2023), as a user would write it."""

        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            loss = None
            if closure is not None:  # Lightning and skorch compute the gradients in it
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                for p in group["params"]:
                    if "m" not in self.state[p]:
                        self.state[p]["m"] = torch.zeros_like(p)
                    m = self.state[p]["m"]
                    p.sub_(m.lerp(p.grad, 0.1).sign_(), alpha=group["lr"])
                    m.lerp_(p.grad, 0.01)
            return loss

    if job.has("own"):
        return partial(Lion, lr=OWN_LR)
    return partial(torch.optim.Adam, lr=LR, **settings)


def _tensors(job: Job) -> list[Any]:
    import torch

    return [torch.from_numpy(a).to(job.device) for a in job[:4]]


def _accuracy(model: Any, x: Any, y: Any) -> float:
    import torch

    model.eval()
    with torch.no_grad():
        parts = zip(x.split(512), y.split(512), strict=True)
        right = sum((model(a).argmax(-1) == b).sum() for a, b in parts)
    model.train()
    return float(right) / y.numel()


def _loss(outputs: Any, y: Any) -> Any:
    """Return the mean cross-entropy over the examples, of a text over its characters."""
    import torch.nn.functional as F

    return F.cross_entropy(outputs.flatten(0, -2), y.flatten())


def problem(job: Job) -> Any:
    """Return the job as a `Problem` of optbench."""
    import torch

    from optbench import Problem, initializers, losses, models
    from optbench.datasets.prepare import Dataset
    from optbench.tasks import Characters, Classes

    x, y, test_x, test_y = (torch.from_numpy(a) for a in job[:4])
    task = (Characters if job.kind == "gpt" else Classes)(job.classes)
    data = Dataset(x, y, x[:0], y[:0], test_x, test_y, task, "benchmark")
    # the task tells a GPT the number of characters, and that it predicts each
    network = models.gpt if job.kind == "gpt" else _network(job)
    return Problem(
        data,
        network,
        losses.cross_entropy,
        initializers.initialize,
        job.batch,
        epochs=job.epochs,
    )


def optbench(job: Job) -> Answer:
    """Train by optbench's own loop, with an evaluation on the test set only."""
    from optbench import train
    from optbench.training.device import choose

    device = choose(job.device)
    updates = train(
        problem(job),
        _optimizer(job),
        device=device,
        eval_train_examples=1,
    )
    rows = [update.epoch for update in updates if update.epoch]
    ends = [float(row["total_seconds"] or 0) for row in rows]
    return list(np.diff(ends)), float(rows[-1]["test_accuracy"] or 0)


def tensors_and_slices(job: Job, *, onednn: bool) -> Answer:
    """Train by the shortest plain loop: tensors, a permutation, fused Adam."""
    import torch

    from optbench.training.device import route_products_to_onednn

    if onednn:
        route_products_to_onednn()
    x, y, test_x, test_y = _tensors(job)
    model = _torch_model(job)
    adam = _optimizer(job, fused=True)(model.parameters())

    def epoch() -> float:
        for batch in torch.randperm(len(y), device=x.device).split(job.batch):
            adam.zero_grad()
            _loss(model(x[batch]), y[batch]).backward()
            adam.step()
        return _accuracy(model, test_x, test_y)

    return timed(job.epochs, epoch)


def tensor_loader(job: Job) -> Answer:
    """Train by a DataLoader over a TensorDataset, as most scripts do."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y, test_x, test_y = _tensors(job)
    loader = DataLoader(TensorDataset(x, y), batch_size=job.batch, shuffle=True)
    return _loader_loop(job, loader, test_x, test_y, torch.device(job.device))


def tutorial(job: Job) -> Answer:
    """Train by the PyTorch tutorials' loop: image by image, loss.item() each step."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    if job.train_x.ndim != 4:
        raise NotImplementedError("the tutorials' loop reads images")
    from optbench.datasets.torchvision_shim import import_torchvision

    import_torchvision()  # also works beside a CPU-only torch
    from torchvision import transforms

    low, high = job.train_x.min(), job.train_x.max()
    pixels = ((job.train_x - low) / (high - low) * 255).round().astype("uint8")
    mean, std = -low / (high - low), 1 / (high - low)
    convert = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((float(mean),), (float(std),))]
    )

    class Images(Dataset[Any]):
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, i: int) -> Any:
            return convert(pixels[i].transpose(1, 2, 0)), int(job.train_y[i])

    loader = DataLoader(Images(), batch_size=job.batch, shuffle=True)
    test_x, test_y = _tensors(job)[2:]
    return _loader_loop(job, loader, test_x, test_y, torch.device(job.device))


def _loader_loop(job: Job, loader: Any, test_x: Any, test_y: Any, device: Any) -> Answer:
    model = _torch_model(job)
    adam = _optimizer(job)(model.parameters())

    def epoch() -> float:
        total = 0.0
        for x, y in loader:
            adam.zero_grad()
            loss = _loss(model(x.to(device)), y.to(device))
            loss.backward()
            adam.step()
            total += loss.item()
        return _accuracy(model, test_x, test_y)

    return timed(job.epochs, epoch)


def lightning(job: Job) -> Answer:
    """Train by Lightning's Trainer over a TensorDataset, with its CSVLogger."""
    import logging
    import warnings

    from optbench.datasets.torchvision_shim import import_torchvision

    import_torchvision()  # torchmetrics imports it
    import lightning as L
    import torch
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
            loss = _loss(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            hit = (self.net(batch[0]).argmax(-1) == batch[1]).float().mean()
            self.log("accuracy", hit)

        def on_validation_epoch_end(self) -> None:
            ends.append(time.perf_counter())
            right.append(float(self.trainer.callback_metrics["accuracy"]))

        def configure_optimizers(self) -> Any:
            return _optimizer(job)(self.parameters())

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
    """Train by skorch's NeuralNetClassifier, with partial_fit for each epoch."""
    import torch
    from skorch import NeuralNetClassifier

    if job.kind == "gpt":
        raise NotImplementedError("skorch's classifier predicts a class for each example")
    net = NeuralNetClassifier(
        _torch_model(job),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=_optimizer(job).func,
        lr=OWN_LR if job.has("own") else LR,
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

    return timed(job.epochs, epoch)


def bound(job: Job, *, whole: bool = False) -> Answer:
    """Time the matrix products of an MLP's epoch alone: a bound, not a peer.

    Of a CNN: the time of as many operations at the rate of the machine's large products.
    whole: also Adam's update of as many parameters, and the evaluation. That is about the least
    time of a loop that steps after its backward pass.
    """
    import torch

    from optbench.training.device import choose

    device = choose(job.device)
    if job.kind in ("lstm", "gpt"):
        raise NotImplementedError("no bound is known")
    if job.kind == "cnn":
        if whole:
            raise NotImplementedError("only the products of linear layers can be taken alone")
        seconds = operations(job) * len(job.train_y) / _rate(device)
        return [seconds] * job.epochs, float("nan")
    sizes = [int(np.prod(job.train_x.shape[1:])), *job.widths, job.classes]
    products = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        x, g, w = (torch.randn(*s, device=device) for s in ((job.batch, a), (job.batch, b), (b, a)))
        products += [(x, w.t()), (g.t(), x)] + ([(g, w)] if i else [])
    outs = [torch.mm(*pair) for pair in products]
    model = _torch_model(job)
    test_x, test_y = _tensors(job)[2:]
    adam = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e-3)

    def epoch() -> float:
        for _ in range(-(-len(job.train_y) // job.batch)):
            for pair, out in zip(products, outs, strict=True):
                torch.mm(*pair, out=out)
            if whole:
                adam.step()
        if whole:
            _accuracy(model, test_x, test_y)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return float("nan")

    return timed(job.epochs, epoch)


def operations(job: Job) -> int:
    """Return the operations of an example's products: forward, and two gradients, one at first."""
    size, width, products = job.train_x.shape[2], job.train_x.shape[1], []
    for n in CHANNELS if job.kind == "cnn" else ():
        products.append(size * size * width * n * 9)
        width, size = n, size // 2
    products += [a * b for a, b in pairwise([size * size * width, *job.widths, 10])]
    return 6 * sum(products) - 2 * products[0]


def _rate(device: Any) -> float:
    """Return the operations a second of a large product of float32 matrices, the best of five."""
    import torch

    n, seconds = 2048, []
    a, out = torch.randn(n, n, device=device), torch.empty(n, n, device=device)
    for _ in range(6):
        begun = time.perf_counter()
        torch.mm(a, a, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 2 * n**3 / min(seconds[1:])
