"""Replayed steps give the numbers of plain ones, bit for bit; what cannot be recorded is not."""

import operator
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from optbench import (
    Problem,
    configured,
    datasets,
    device,
    grouping,
    initializers,
    losses,
    models,
    prepare,
    recorded,
)
from optbench.__main__ import config_folder
from optbench.optimizers import ELEMENTWISE
from optbench.recorded import Unrecordable, record_steps, unchanged
from optbench.training import Training

OPTIMIZERS = sorted((config_folder() / "optimizer").rglob("*.yaml"))
RECORDED = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "adamw")
ADAM = partial(torch.optim.Adam, lr=0.01)


def both(problem, optimizer, **arguments):
    """Rows and weights of a run with plain steps and of one with replayed steps."""
    found = []
    for record in (False, True):
        training = Training(problem, optimizer, log_every=1, record=record, **arguments)
        rows = []
        for update in training.updates():
            rows += [*update.steps, *([update.epoch] if update.epoch else [])]
        rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]
        found.append((rows, training.model.state_dict(), training))
    return found


def check(problem, optimizer, **arguments) -> Training:
    plain, replayed = both(problem, optimizer, **arguments)
    assert plain[0] == replayed[0]
    assert all(torch.equal(plain[1][key], replayed[1][key]) for key in plain[1])
    return replayed[2]


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda path: path.stem)
def test_every_optimizer(make_problem, path: Path):
    optimizer = configured.build("optimizer", OmegaConf.to_container(OmegaConf.load(path)))
    training = check(make_problem(epochs=4), optimizer)
    if path.parent.name == "optimizer" and path.stem in RECORDED:
        assert training.replay.on, "the common optimizers are to be fast"


@pytest.mark.parametrize("cls", ELEMENTWISE, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("large", [1, 30])  # all parameters, and some of them
def test_large_parameters_are_updated_within_the_backward_pass(
    make_problem, monkeypatch, cls, large
):
    graphs = []
    original = recorded._script

    def script(graph, rates):
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
        return original(graph, rates)

    monkeypatch.setattr(recorded, "LARGE", large)
    monkeypatch.setattr(recorded, "_script", script)
    training = check(make_problem(partial(models.mlp, hidden=[8, 8])), partial(cls, lr=0.01))
    if training.replay.on:
        products = [k for k, target in enumerate(graphs[-1]) if target is torch.ops.aten.mm.default]
        updates = [k for k, target in enumerate(graphs[-1]) if is_update(target)]
        assert updates[0] < products[-1]  # which gives the gradient of the first layer's weights
    else:
        assert cls.__name__ in ("NAdam", "RAdam", "Adamax")  # they read how many steps there were


def is_update(target) -> bool:
    return target is not operator.getitem and target._schema.is_mutable


def test_an_optimizer_that_needs_all_gradients_updates_at_the_end(make_problem, monkeypatch):
    class Clipped(torch.optim.SGD):
        def step(self, closure):
            value = closure()
            ps = [p for group in self.param_groups for p in group["params"]]
            norm = torch.stack([p.grad.norm() for p in ps]).norm()
            for p in ps:
                p.grad = p.grad / norm.clamp(min=0.1)
            return super().step(lambda: value)

    monkeypatch.setattr(recorded, "LARGE", 1)
    assert check(make_problem(epochs=4), partial(Clipped, lr=0.1)).replay.on


class ReadsItsWeights(torch.nn.Module):
    """Its backward pass reads weights that autograd does not know to be needed."""

    def __init__(self, shape, classes):
        super().__init__()
        self.a, self.b = torch.nn.Linear(shape[0], 8), torch.nn.Linear(8, 8)
        self.out = torch.nn.Linear(8, classes)

    def forward(self, x):
        h = torch.tanh(self.a(x))
        return self.out(torch.tanh(self.b(torch.tanh(h @ self.b.weight.data))))


@pytest.mark.parametrize("first", [0.0, 1e-12, 1.0])
@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.Adam])
def test_weights_that_are_read_after_their_gradient_are_updated_at_the_end(
    make_problem, monkeypatch, cls, first
):
    monkeypatch.setattr(recorded, "LARGE", 1)

    def warm_up(optimizer, steps):
        rate = torch.optim.lr_scheduler.LambdaLR
        return rate(optimizer, lambda k: first if k < 5 else 1.0)

    check(make_problem(ReadsItsWeights, epochs=6), partial(cls, lr=0.1), schedule=warm_up)


def test_hooks_of_an_optimizer_see_all_parameters(make_problem, monkeypatch):
    seen = []

    def hooked(params, lr):
        optimizer = torch.optim.SGD(params, lr, fused=True)
        optimizer.register_step_post_hook(
            lambda optimizer, *_: seen.append(len(optimizer.param_groups[0]["params"]))
        )
        return optimizer

    monkeypatch.setattr(recorded, "LARGE", 1)
    assert check(make_problem(epochs=4), partial(hooked, lr=0.1)).replay.on
    assert set(seen) == {4}  # two layers' weights and biases, at every call


def test_the_log_says_once_what_recording_took_and_whether_it_is_worth_it(make_problem):
    def notes(optimizer, record):
        training = Training(make_problem(epochs=4), optimizer, record=record)
        return [update.note for update in training.updates() if update.note]

    (note,) = notes(ADAM, record=True)
    assert re.search(
        r"recorded in \d+\.\d s, which about 1,000 .* earn back; the run has \d+$", note
    )
    assert notes(ADAM, record=False) == notes(ADAM, record=None) == []  # so short a run
    (note,) = notes(partial(torch.optim.LBFGS, max_iter=2), record=True)
    assert note.startswith("plain steps, not recorded ones: ")


class LookAhead(torch.optim.SGD):
    """Every fifth step goes back half of the way; it counts where nobody sees it."""

    def __init__(self, params, lr, moves=False):
        super().__init__(params, lr)
        self.k, self.moves = 0, moves
        self.slow = None

    @torch.no_grad()
    def step(self, closure):
        ps = [p for group in self.param_groups for p in group["params"]]
        if self.slow is None:
            self.slow = [p.clone() for p in ps]
        value = super().step(closure)
        self.k += 1
        if self.k % 5 == 0:
            for p, slow in zip(ps, self.slow, strict=True):
                slow.lerp_(p, 0.5)
                p.data = slow.clone() if self.moves else p.data.copy_(slow)
        return value


@pytest.mark.parametrize("moves", [False, True])
def test_an_optimizer_whose_steps_are_not_all_alike_takes_plain_ones(make_problem, moves):
    optimizer = partial(LookAhead, lr=0.1, moves=moves)
    assert not check(make_problem(epochs=6), optimizer).replay.on
    assert not grouping.takes_gradients(optimizer)


@pytest.mark.parametrize(
    "model",
    [
        partial(models.mlp, hidden=[8], batch_norm=True, dropout=0.3, input_dropout=0.1),
        partial(
            models.mlp, hidden=[8, 8], activation="elu", batch_norm=True, batch_norm_place="after"
        ),
    ],
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight_penalty": 0.01},
        {"shuffle": "fixed_order"},
        {"batch_size": 10, "drop_last": True},
        {"batch_size": 11},
        {"epochs": None, "steps": 14},
    ],
)
def test_models_and_batches(make_problem, model, changes):
    assert check(make_problem(model, **({"epochs": 4} | changes)), ADAM).replay.on


@pytest.mark.parametrize("model", [models.mlp, models.cnn])
def test_the_default_models_at_their_real_size(model):
    # oneDNN's kernels depend on the size
    data = prepare(datasets.mnist_5k(), subset=600)
    device.choose("cpu")
    problem = Problem(
        data, model, losses.cross_entropy, initializers.initialize, epochs=None, steps=8
    )
    assert check(problem, ADAM, eval_train_examples=100).replay.on


@pytest.mark.parametrize("schedule", sorted((config_folder() / "schedule").glob("*.yaml")))
def test_schedules(make_problem, schedule: Path):
    factory = configured.build("schedule", OmegaConf.to_container(OmegaConf.load(schedule)))
    assert check(make_problem(epochs=5), ADAM, schedule=factory).replay.on


def test_a_schedule_of_momentum_as_well_keeps_to_plain_steps(make_problem):
    def one_cycle(optimizer, total):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total)

    assert not check(make_problem(epochs=5), ADAM, schedule=one_cycle).replay.on


def test_watched_steps_are_plain(make_problem):
    assert check(make_problem(epochs=5), ADAM, layers=True, layers_every=4).replay.on


def test_only_long_runs_on_the_cpu_are_recorded_unasked(make_problem):
    model = partial(models.mlp, hidden=[8], batch_norm=True)  # others are compiled
    assert not Training(make_problem(model, epochs=5), ADAM).replay.on
    assert Training(make_problem(model, epochs=1000), ADAM).replay.on


def test_a_step_that_depends_on_its_numbers_is_refused(make_problem):
    model = torch.nn.Linear(5, 3)
    x, y = torch.randn(8, 5), torch.randint(3, (8,))

    def loss(x, y):
        value = torch.nn.functional.cross_entropy(model(x), y)
        return 2 * value if value > 1 else value

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(Unrecordable):
        record_steps(model, loss, optimizer, x, y)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_unchanged_puts_everything_back():
    model = models.mlp((4,), 2, hidden=[3], batch_norm=True, dropout=0.5)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(6, 4)).sum().backward()
    optimizer.step()
    state = torch.get_rng_state()
    before = [
        t.clone()
        for t in [*model.state_dict().values(), *optimizer.state_dict()["state"][0].values()]
    ]
    with unchanged(model, optimizer):
        model(torch.randn(6, 4)).sum().backward()
        optimizer.step()
    after = [*model.state_dict().values(), *optimizer.state_dict()["state"][0].values()]
    assert all(map(torch.equal, before, after))
    assert torch.equal(torch.get_rng_state(), state)
