"""Steps as a CUDA graph: on a GPU, and without one against a stand-in for CUDA's graphs.

The stand-in does what a graph does: while it captures, it notes every operation with the memory it
reads and writes, and a replay does them again on the same memory, whatever Python says by then.
"""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from optbench import models, recorded
from optbench.graphed import capture_steps
from optbench.training import Training

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
    "adam": partial(torch.optim.Adam, lr=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "adagrad": partial(torch.optim.Adagrad, lr=0.05),
}
MORE = {
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01),
    "adadelta": partial(torch.optim.Adadelta, lr=1.0),
    "nadam": partial(torch.optim.NAdam, lr=0.01),
    "lbfgs": partial(torch.optim.LBFGS, max_iter=3),
}


class Graph(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.tape = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.tape.append((func, args, kwargs or {}, out))
        return out

    def register_generator_state(self, generator):
        pass

    def replay(self):
        for func, args, kwargs, out in self.tape:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def stand_in(monkeypatch):
    """Training on the CPU that captures its steps."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(recorded, "record_steps", capture_steps)


def curves(problem, optimizer, device, *, record, **arguments):
    training = Training(problem, optimizer, log_every=1, record=record, device=device, **arguments)
    rows = [row for update in training.updates() for row in update.steps]
    return [[row["train_loss"], row["lr"]] for row in rows], training


def exponential(optimizer, total):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)


@pytest.mark.parametrize("schedule", [None, exponential])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_replayed_graphs_give_what_plain_steps_give(make_problem, stand_in, name, schedule):
    problem = make_problem(partial(models.mlp, hidden=[8], batch_norm=True), epochs=5)
    arguments = {"schedule": schedule}
    plain, _ = curves(problem, OPTIMIZERS[name], "cpu", record=False, **arguments)
    replayed, training = curves(problem, OPTIMIZERS[name], "cpu", record=True, **arguments)
    assert training.replay.on
    for a, b in zip(plain, replayed, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_what_a_graph_would_not_repeat_is_not_captured(make_problem, stand_in):
    problem = make_problem(epochs=5)
    plain, _ = curves(problem, MORE["lbfgs"], "cpu", record=False)
    replayed, training = curves(problem, MORE["lbfgs"], "cpu", record=True)
    assert plain == replayed
    assert not training.replay.on


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS | MORE)
def test_on_a_gpu(make_problem, name, dropout):
    optimizer = (OPTIMIZERS | MORE)[name]
    model = partial(models.mlp, hidden=[8], batch_norm=True, dropout=dropout)
    plain, _ = curves(make_problem(model, epochs=5), optimizer, "cuda", record=False)
    replayed, training = curves(make_problem(model, epochs=5), optimizer, "cuda", record=True)
    assert training.replay.on == (name != "lbfgs")
    for a, b in zip(plain, replayed, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
