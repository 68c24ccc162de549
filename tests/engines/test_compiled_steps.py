"""Compiled steps give the numbers of plain ones within float32's rounding."""

import shutil
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from exact_runs import Run, check_near, plain_run, weights_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn

from optbench import engines, losses, models
from optbench.config import build
from optbench.engines.compiled_mlp import compile, eligibility, mlp
from optbench.formats.groups import config_folder
from optbench.problem import Problem
from optbench.training.loop import Training

OPTIMIZERS = sorted((config_folder() / "optimizer").rglob("*.yaml"))
KNOWN = {
    "sgd",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adadelta",
    "adam",
    "adamw",
    "amsgrad",
}
ADAM = partial(torch.optim.Adam, lr=0.01)
WHOLE = partial(engines.select, "compiled_mlp", required=False)
UNIT = 2**-24  # float32's: what it rounds off, as a share
# layers wider than a block of vectors
LARGE_MODEL = partial(models.mlp, hidden=[300, 230], activation="tanh")
LARGE = {"model": LARGE_MODEL, "n": 200, "batch_size": 70}
pytestmark = pytest.mark.skipif(not mlp.available(), reason="no C++ compiler")


def follow(problem, optimizer, **arguments):
    """The losses of each step with the weights at the end, and the training."""
    training = Training(problem, optimizer, log_every=1, **{"engine": WHOLE} | arguments)
    found = [row["train_loss"] for update in training.updates() for row in update.steps]
    return Run(torch.tensor(found), weights_of(training.model)), training


def check(problem, optimizer, **arguments) -> Training:
    own, training = follow(problem, optimizer, **arguments)
    assert training.engine
    plain, exact = (
        plain_run(problem, optimizer, dtype, **arguments)
        for dtype in (torch.float32, torch.float64)
    )
    check_near(own, plain, exact)
    return training


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_plain_steps_are_those_of_a_plain_loop_bit_for_bit(make_problem, dropout):
    problem = make_problem(partial(models.mlp, hidden=[9], dropout=dropout), epochs=4)
    own, _ = follow(problem, ADAM, engine=None)
    expected = plain_run(problem, ADAM, torch.float32)
    assert torch.equal(own.losses, expected.losses)
    assert all(map(torch.equal, own.weights, expected.weights))


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda path: path.stem)
def test_every_optimizer_that_is_known_takes_compiled_steps(make_problem, path: Path):
    optimizer = build.build("optimizer", OmegaConf.to_container(OmegaConf.load(path)))
    problem = make_problem(epochs=4)
    if path.parent.name == "optimizer" and path.stem in KNOWN:
        check(problem, optimizer)
        check(make_problem(**LARGE), optimizer)
    else:
        assert not Training(problem, optimizer, engine=WHOLE).engine


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.SGD, lr=0.1, weight_decay=0.1),
        partial(torch.optim.SGD, lr=0.1, momentum=0.8, dampening=0.3, weight_decay=0.01),
        partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.95), eps=1e-4, weight_decay=0.1),
        partial(torch.optim.AdamW, lr=0.01, weight_decay=0.3),
        partial(torch.optim.AdamW, lr=0.01, amsgrad=True),
        partial(torch.optim.RMSprop, lr=0.01, alpha=0.9, eps=1e-4, weight_decay=0.1),
        partial(torch.optim.Adagrad, lr=0.05, lr_decay=0.1, initial_accumulator_value=0.1),
        partial(torch.optim.Adadelta, lr=0.5, rho=0.8, weight_decay=0.1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("decay", [True, False])
def test_compiled_steps_follow_the_settings_of_optimizers(make_problem, optimizer, decay):
    if decay or "weight_decay" in optimizer.keywords:
        check(make_problem(epochs=4), optimizer, decay_biases_and_norms=decay)
        check(make_problem(**LARGE), optimizer, decay_biases_and_norms=decay)


@pytest.mark.parametrize(
    "activation",
    sorted(name for name, cls in models.ACTIVATIONS.items() if cls in eligibility.ACTIVATIONS),
)
@pytest.mark.parametrize("initial", [1e-3, 1.0])
def test_compiled_steps_follow_every_activation(make_problem, activation, initial):
    def initialize(model: nn.Module, generator: torch.Generator) -> None:
        for p in model.parameters():
            nn.init.normal_(p, std=initial, generator=generator)

    model = partial(models.mlp, hidden=[21, 9], activation=activation)
    problem = make_problem(model, epochs=4, initializer=initialize)
    check(problem, partial(torch.optim.SGD, lr=0.05))
    large = partial(model, hidden=[300, 230])
    problem = make_problem(**LARGE | {"model": large}, initializer=initialize)
    check(problem, partial(torch.optim.SGD, lr=0.01))


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(1, 400),
    hidden=st.lists(st.integers(1, 400), max_size=3),
    classes=st.integers(2, 40),
    batch=st.integers(2, 290),
    smoothing=st.sampled_from([0.0, 0.1]),
    threads=st.integers(1, 3),
)
@example(inputs=2100, hidden=[90], classes=5, batch=70, smoothing=0.0, threads=2)
@example(inputs=40, hidden=[1100, 70], classes=70, batch=290, smoothing=0.0, threads=2)
def test_gradients_are_those_of_float64(inputs, hidden, classes, batch, smoothing, threads):
    """One step of lr 1 of gradient descent is the gradient, of any sizes and numbers of threads."""
    generator = torch.Generator().manual_seed(0)
    widths = [inputs, *hidden, classes]
    modules: list[nn.Module] = []
    for a, b in pairwise(widths):
        modules += [nn.Linear(a, b), nn.ELU()]
    model = nn.Sequential(*modules[:-1])
    x = torch.randn(300, inputs, generator=generator)
    y = torch.randint(classes, (300,), generator=generator)
    chosen = torch.randperm(300, generator=generator)[:batch]
    loss = partial(losses.cross_entropy, label_smoothing=smoothing)
    exact = nn.Sequential(*modules[:-1]).double()
    value = loss(exact(x[chosen].double()), y[chosen])
    gradients = torch.autograd.grad(value, list(exact.parameters()))
    before = [p.detach().clone() for p in exact.parameters()]
    model.float()
    steps = mlp.CompiledSteps(loss, model, torch.optim.SGD(model.parameters(), lr=1.0))
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        taken = steps(x, y, [chosen], [[1.0]])
    finally:
        torch.set_num_threads(usual)
    assert taken.item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6)
    for p, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(old - p.double(), gradient, rtol=1e-4, atol=1e-6)


def sum_error(terms: int) -> float:
    """Bound of a float32 sum's error, as a share of the sum of the terms' sizes.

    Rounding errors that are independent add up to at most 6 sqrt(n) u of it, but for one sum in
    65 million (N. Higham, T. Mary, "A new approach to probabilistic rounding error analysis", SIAM
    J. Sci. Comput. 41, 2019; u = 2^-24). The worst case, n u, would let bfloat16's errors pass.
    """
    return 6 * terms**0.5 * UNIT


def gradients_and_bounds(model, x, y):
    """The gradients of the mean cross-entropy in float64, and bounds of what float32 makes of them.

    model: linear layers and tanh, in float64. The errors of each layer are the sums' own, and those
    of what goes into them, to first order (N. Higham, "Accuracy and Stability of Numerical
    Algorithms", 2nd ed., sections 3.1 and 3.3). A tanh, an exponential or a quotient is taken to be
    right to 4 u.
    """
    layers = [module for module in model if isinstance(module, nn.Linear)]
    inputs, errors = [x], [torch.zeros_like(x)]
    for place, layer in enumerate(layers):
        weight, bias = layer.weight.detach(), layer.bias.detach()
        z = inputs[-1] @ weight.T + bias
        terms = inputs[-1].abs() @ weight.abs().T + bias.abs()
        error = sum_error(layer.in_features + 1) * terms + errors[-1] @ weight.abs().T
        if place + 1 < len(layers):
            inputs.append(z.tanh())
            errors.append((1 - z.tanh() ** 2) * error + 4 * UNIT * z.tanh().abs())
    share = z.softmax(dim=1)
    delta = (share - nn.functional.one_hot(y, z.shape[1])) / len(y)
    # a softmax moves by its logits' errors, twice the largest at most
    largest = error.amax(dim=1, keepdim=True) + UNIT * (z - z.amax(dim=1, keepdim=True)).abs()
    off = share / len(y) * (2 * largest + sum_error(z.shape[1]) + 4 * UNIT) + UNIT * delta.abs()
    found = []
    for layer, h, error in zip(layers[::-1], inputs[::-1], errors[::-1], strict=True):
        terms, own = delta.abs().T @ h.abs(), sum_error(len(y))
        bound = own * terms + off.T @ h.abs() + delta.abs().T @ error
        found.append((delta.sum(dim=0), own * delta.abs().sum(dim=0) + off.sum(dim=0)))
        found.append((delta.T @ h, bound))
        weight = layer.weight.detach()
        into = delta @ weight
        off = off @ weight.abs() + sum_error(layer.out_features) * (delta.abs() @ weight.abs())
        slope = 1 - h**2
        off = slope * off + into.abs() * (2 * h.abs() * error + 2 * UNIT)
        delta = into * slope
    return found[::-1]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0])
@pytest.mark.parametrize(("widths", "batch"), [((784, 300, 200, 10), 128), ((1500, 70, 10), 64)])
@pytest.mark.parametrize("spread", [1.0, 0.02])
def test_sums_are_as_near_to_float64_as_float32_allows(widths, batch, scale, spread):
    """Of inputs of any size. spread: of the weights."""
    generator = torch.Generator().manual_seed(0)
    modules: list[nn.Module] = []
    for a, b in pairwise(widths):
        modules += [nn.Linear(a, b), nn.Tanh()]
    model = nn.Sequential(*modules[:-1])
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * spread * widths[0] ** -0.5)
    x = scale * torch.randn(200, widths[0], generator=generator)
    y = torch.randint(widths[-1], (200,), generator=generator)
    chosen = torch.randperm(200, generator=generator)[:batch]
    exact = deepcopy(model).double()
    wanted = gradients_and_bounds(exact, x[chosen].double(), y[chosen])
    loss = losses.cross_entropy(exact(x[chosen].double()), y[chosen])
    for right, (formula, _) in zip(
        torch.autograd.grad(loss, exact.parameters()), wanted, strict=True
    ):
        torch.testing.assert_close(formula, right, rtol=1e-9, atol=1e-15)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.5)
    kept = [torch.zeros_like(p) for p in model.parameters()]
    for p, buffer in zip(model.parameters(), kept, strict=True):
        optimizer.state[p]["momentum_buffer"] = buffer
    mlp.CompiledSteps(losses.cross_entropy, model, optimizer)(x, y, [chosen], [[0.0]])
    loss = losses.cross_entropy(model(x[chosen]), y[chosen])
    usual = torch.autograd.grad(loss, list(model.parameters()))
    for own, torchs, (right, bound) in zip(kept, usual, wanted, strict=True):
        assert ((own - right).abs() <= bound).all()
        assert ((torchs - right).abs() <= bound).all()


def test_scratch_is_written_before_it_is_read():
    def run(value: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        model = nn.Sequential(nn.Linear(400, 180), nn.Sigmoid(), nn.Linear(180, 5))
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / 8)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=1e-12)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
        x, y = torch.randn(300, 400, generator=generator), torch.arange(300) % 5
        steps = mlp.CompiledSteps(losses.cross_entropy, model, optimizer)
        steps.scratch = torch.empty(4_000_000)
        found = []
        for size in (1, 16, 100, 33, 289):
            steps.scratch.fill_(value)
            batches = [torch.randperm(300, generator=generator)[:size] for _ in range(2)]
            found.append(steps(x, y, batches, [[0.01]] * 2))
        return torch.cat([*found, *(p.detach().flatten() for p in model.parameters())])

    assert torch.equal(run(0.0), run(float("nan")))


@pytest.mark.parametrize(("threads", "stop_at"), [(1, 2), (3, 5), (2, 11)])
def test_threads_and_chunks_change_no_bit(make_problem, monkeypatch, threads, stop_at):
    """A run that stops and goes on within an epoch, on other threads, is the undisturbed one."""
    problem = make_problem(**LARGE, epochs=5)
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        whole, _ = follow(problem, ADAM)
        first = Training(problem, ADAM, log_every=1, engine=WHOLE)
        seen: list[float] = []
        monkeypatch.setattr("optbench.training.loop.SYNC_EVERY", 1)
        for update in first.updates(stop=lambda: first.step + 1 == stop_at):
            seen += [row["train_loss"] for row in update.steps]
        assert first.step == stop_at
        monkeypatch.undo()
        torch.set_num_threads(threads)
        rest = Training(problem, ADAM, log_every=1, engine=WHOLE)
        rest.load_state_dict(first.state_dict())
        seen += [row["train_loss"] for update in rest.updates() for row in update.steps]
    finally:
        torch.set_num_threads(usual)
    assert torch.equal(torch.tensor(seen), whole.losses)
    pairs = zip(rest.model.parameters(), whole.weights, strict=True)
    assert all(torch.equal(p, weight) for p, weight in pairs)


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 90), min_size=2, max_size=4),
    batch=st.integers(1, 90),
    threads=st.integers(2, 5),
)
@example(widths=[5, 300, 230, 3], batch=20, threads=2)
@example(widths=[700, 100, 3], batch=77, threads=3)
def test_the_number_of_threads_changes_no_bit(widths, batch, threads):
    check_threads(widths, batch, threads)


def check_threads(widths, batch, threads):
    """Whatever the share of a layer that a thread has."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(100, widths[0], generator=generator), torch.arange(100) % widths[-1]
    batches = [torch.randperm(100, generator=generator)[:batch] for _ in range(5)]
    layers = [module for a, b in pairwise(widths) for module in (nn.Linear(a, b), nn.Tanh())]
    start = nn.Sequential(*layers[:-1])
    found = []
    usual = torch.get_num_threads()
    try:
        for number in (1, threads):
            model = deepcopy(start)
            optimizer = torch.optim.Adagrad(model.parameters(), lr=0.01)
            torch.set_num_threads(number)
            steps = mlp.CompiledSteps(losses.cross_entropy, model, optimizer)
            found.append([steps(x, y, batches, [[0.01]] * 5), *weights_of(model)])
    finally:
        torch.set_num_threads(usual)
    assert all(map(torch.equal, *found))


KINDS = {  # registers of 4, 8 and 16 floats
    "x86-64": {"sse2"},
    "haswell": {"avx2", "fma", "bmi2"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


@pytest.mark.parametrize(
    "kind", [pytest.param("x86-64", marks=pytest.mark.slow), "haswell", "x86-64-v4"]
)
def test_compiled_steps_are_right_on_other_cpus(make_problem, monkeypatch, tmp_path, kind):
    cpu = Path("/proc/cpuinfo")
    known = cpu.read_text().split() if cpu.exists() else []
    if not KINDS[kind] <= set(known):
        pytest.skip("this CPU cannot run it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    flags = [flag.replace("native", kind) for flag in compile.COMPILER_FLAGS]
    monkeypatch.setattr(compile, "COMPILER_FLAGS", flags)
    library = compile.library.__wrapped__(mlp.SOURCE)
    monkeypatch.setattr(mlp, "library", lambda source: library)
    check_threads([5, 300, 230, 3], 20, 2)
    for batch in (1, 7, 16, 60):  # each with tiles of another shape
        model = partial(models.mlp, hidden=[37, 66], activation="tanh")
        check(make_problem(model, n=150, batch_size=batch), partial(torch.optim.Adam, lr=0.003))


def test_a_last_example_joins_the_largest_batch(make_problem):
    problem = make_problem(models.logreg, n=1281, batch_size=512, epochs=3)
    assert len(problem.dataset.train_y) == 1025
    assert problem.steps_per_epoch == 2
    check(problem, partial(torch.optim.Adam, lr=0.001))


def test_a_state_is_loaded_between_steps(make_problem):
    problem = make_problem(epochs=3)
    first, second = (Training(problem, ADAM, engine=WHOLE) for _ in range(2))
    updates = first.updates()
    assert next(updates).step == 0
    assert next(updates).step == 3
    state = deepcopy(first.state_dict())
    other = second.updates()
    for _ in range(3):
        next(other)
    second.load_state_dict(state)
    ends = [[u.epoch["train_loss"] for u in stream][-1] for stream in (updates, second.updates())]
    assert ends[0] == ends[1]


def test_schedules_diagnostics_and_last_batches_are_compiled(make_problem):
    def cosine(optimizer, total_steps):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)

    problem = make_problem(n=75, epochs=5)  # batches of 16, and one of 12
    assert check(problem, ADAM, schedule=cosine).engine
    check(problem, ADAM, layers=True, layers_every=3)
    check(make_problem(models.logreg, batch_size=1, epochs=1), partial(torch.optim.SGD, lr=0.01))
    check(make_problem(loss=losses.nll, epochs=3), ADAM)


class OfDecay(torch.optim.lr_scheduler.LambdaLR):
    """Changes another setting too, for a while."""

    def step(self, epoch=None):
        super().step(epoch)
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.5 * (3 <= self.last_epoch < 6)


def test_a_schedule_of_something_else_is_left_to_torch(make_problem):
    problem = make_problem()

    def decay(optimizer, total_steps):
        return OfDecay(optimizer, lambda step: 1.0)

    assert not Training(problem, ADAM, schedule=decay, engine=WHOLE).engine


def test_a_schedule_of_momentum_is_left_to_torch(make_problem):
    def cycle(optimizer, total_steps, **arguments):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps, **arguments)

    problem, optimizer = make_problem(), partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    assert not Training(problem, optimizer, schedule=cycle, engine=WHOLE).engine
    check(problem, optimizer, schedule=partial(cycle, cycle_momentum=False))


def test_a_loss_that_is_not_finite_is_seen(make_problem):
    problem = make_problem(partial(models.mlp, hidden=[20, 20]), epochs=40)
    optimizer = partial(torch.optim.SGD, lr=1e5)
    for engine in (None, WHOLE):
        training = Training(problem, optimizer, engine=engine)
        assert list(training.updates())[-1].status == "diverged"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("inputs", [20, 700])
def test_numbers_that_are_no_numbers_stay_so(inputs, value):
    model = nn.Sequential(nn.Linear(inputs, 100), nn.Identity(), nn.Linear(100, 4))
    with torch.no_grad():
        model[0].weight[3, 5] = float(value)
    steps = mlp.CompiledSteps(
        losses.cross_entropy, model, torch.optim.SGD(model.parameters(), lr=0.1)
    )
    x, y = torch.rand(80, inputs), torch.arange(80) % 4
    assert not steps(x, y, [torch.arange(70)], [[0.1]]).isfinite().any()
    assert model[2].bias.isnan().all()


@pytest.mark.parametrize("units", [30, 1000])
def test_a_masked_class_stays_masked(units):
    """Without weight decay an infinite bias is left as it is."""
    model = nn.Sequential(nn.Linear(70, units), nn.ReLU(), nn.Linear(units, 4))
    with torch.no_grad():
        model[2].bias[1] = -torch.inf
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = mlp.CompiledSteps(losses.cross_entropy, model, optimizer)
    x, y, batch = torch.rand(80, 70), torch.arange(80) % 2 * 2, torch.arange(70)
    assert steps(x, y, [batch] * 3, [[0.1]] * 3).isfinite().all()
    assert model[2].bias[1] == -torch.inf
    assert model[2].weight.isfinite().all()


def hooked(model: nn.Module) -> nn.Module:
    model.register_forward_hook(lambda *_: None)
    return model


class Own(nn.Linear):
    """May compute anything."""


def replaced(model: nn.Module) -> nn.Module:
    usual = model.forward
    model.forward = lambda x: usual(x) * 0.5
    return model


@pytest.mark.parametrize(
    "model",
    [
        lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(5, 3), nn.ReLU()),
        lambda *_: nn.Sequential(nn.Flatten(), Own(5, 3)),
        lambda *_: nn.Sequential(nn.Flatten(), hooked(nn.Linear(5, 3))),
        lambda *_: hooked(nn.Sequential(nn.Flatten(), nn.Linear(5, 3))),
        lambda *_: nn.Sequential(nn.Linear(5, 5), nn.LeakyReLU(-0.1), nn.Linear(5, 3)),
        lambda *_: nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 3).requires_grad_(False)),
        lambda *_: nn.Sequential(*[nn.Linear(5, 5)] * 2, nn.Linear(5, 3)),
        lambda *_: replaced(nn.Sequential(nn.Linear(5, 3))),
        lambda *_: nn.Sequential(nn.Linear(5, 5), replaced(nn.ReLU()), nn.Linear(5, 3)),
        lambda *_: nn.Sequential(nn.Linear(5, 3)).double(),
        lambda *_: nn.Sequential(nn.Linear(2, 3)),
        lambda *_: nn.Sequential(nn.Linear(5, 0), nn.ReLU(), nn.Linear(0, 3)),
        lambda *_: nn.Sequential(nn.Linear(5, 5), nn.Softplus(), nn.Linear(5, 3)),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_unknown_models_are_left_to_torch(make_problem, model):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(5, 5), nn.LeakyReLU(), nn.Linear(5, 3))
    assert not eligibility.model_refusal(make_problem(), plain)
    assert eligibility.model_refusal(make_problem(), model((5,), 3))


def test_unknown_problems_are_left_to_torch(make_problem):
    model = models.mlp((5,), 3, hidden=[5])
    assert not eligibility.model_refusal(make_problem(), model)
    for changes in (
        {"loss": losses.as_function(nn.MSELoss())},  # of numbers, and these are classes
        {"loss": losses.as_function(nn.CrossEntropyLoss(reduction="sum"))},
        {"loss": losses.as_function(nn.CrossEntropyLoss(weight=torch.ones(3)))},
        {"loss": partial(losses.mse, output="tanh")},
        {"loss": partial(losses.cross_entropy, label_smoothing=0.1, x=1)},
        {"batch_size": "full"}, {"precision": "bfloat16"}, {"weight_penalty": 0.1},
        {"loss": lambda logits, labels: losses.cross_entropy(logits, labels)},
    ):  # fmt: skip
        assert eligibility.model_refusal(make_problem(**changes), model)
    large = make_problem(n=4000, batch_size=513)
    assert eligibility.model_refusal(large, model)
    assert eligibility.model_refusal(
        make_problem(batch_size=500), model
    )  # all examples in one batch
    left_out = replace(make_problem().dataset, train_y=torch.full((48,), -100))
    assert eligibility.model_refusal(replace(make_problem(), dataset=left_out), model)
    assert isinstance(large, Problem)


def test_data_of_another_kind_are_refused():
    model = nn.Sequential(nn.Linear(20, 4))
    steps = mlp.CompiledSteps(
        losses.cross_entropy, model, torch.optim.SGD(model.parameters(), lr=0.1)
    )
    before = model[0].weight.detach().clone()
    x, y, batch = torch.rand(50, 20), torch.arange(50) % 4, [torch.arange(50)]
    for inputs, labels in (
        (x.double(), y), (x[:, :19], y), (torch.rand(20, 50).T, y), (x, y + 1), (x, y - 1),
        (x, y.int()),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"must be contiguous|none of the 4 classes"):
            steps(inputs, labels, batch, [[0.1]])
    assert torch.equal(before, model[0].weight)


def test_without_a_compiler_steps_are_torchs(make_problem, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    compile.library.cache_clear()
    mlp.available.cache_clear()
    try:
        assert not Training(make_problem(), ADAM, engine=WHOLE).engine
        monkeypatch.setenv("CXX", "false")
        compile.library.cache_clear()
        mlp.available.cache_clear()
        assert not Training(make_problem(), ADAM, engine=WHOLE).engine
        assert "could not be compiled" in capsys.readouterr().err
    finally:
        compile.library.cache_clear()
        mlp.available.cache_clear()


def test_a_library_is_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "seven.cpp"
    source.write_text('extern "C" int seven() { return 7; }')
    assert compile.library.__wrapped__(source).seven() == 7
    (kept,) = (tmp_path / "optbench/compiled").glob("seven-*.so")
    made = kept.stat().st_mtime_ns
    assert compile.library.__wrapped__(source).seven() == 7
    assert kept.stat().st_mtime_ns == made
    content = kept.read_bytes()
    kept.unlink()  # this process has it open
    kept.write_bytes(content[:4096])  # it would end a process with a bus error
    assert compile.library.__wrapped__(source).seven() == 7
    assert len(kept.read_bytes()) > 4096
    source.write_text('#include "one.hpp"\nextern "C" int seven() { return 7 + ONE; }')
    header = tmp_path / "one.hpp"
    header.write_text("#define ONE 1")
    assert compile.library.__wrapped__(source).seven() == 8
    header.write_text("#define ONE 2")
    assert compile.library.__wrapped__(source).seven() == 9
