"""What own code keeps on its classes and in its modules belongs to a run, not to the process."""

import array
import contextvars
import csv
import decimal
import functools
import io
import itertools
import random
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Union

import numpy as np
import plain_loop
import pytest
import rich.console
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from optbench import compare, losses, train
from optbench.common.errors import UserError
from optbench.training import closures, saved_state, step_cost
from optbench.training.loop import Training
from optbench.trajectories.descent import run_optimizer
from optbench.trajectories.functions import FUNCTIONS

MINE = sys.modules[__name__]
COUNT = 0
MEMORY: dict[str, Tensor] = {}
BY_PARAMETER: dict[nn.Parameter, Tensor] = {}
DRAWS = random.Random(3)
CONFIG = {"scale": 1.0}
LATER: int  # no value before the first step


class Base(Optimizer):
    """Descends with a step size that its `factor` gives."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, {"lr": lr})

    def factor(self):
        return 1.0

    @torch.no_grad()
    def step(self):
        factor = float(self.factor())
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"] * factor)


def made_counter() -> Callable[[], int]:
    count, seen = 0, []

    def counted() -> int:
        nonlocal count
        count += 1
        seen.append(count)
        return count + len(seen)

    return counted


counted = made_counter()


class Closed(Base):
    def factor(self):
        return 1 / counted()


def counting(function: Callable[..., float]) -> Callable[..., float]:
    calls = 0

    @functools.wraps(function)
    def wrapper(*args: Any) -> float:
        nonlocal calls
        calls += 1
        return function(*args) / calls

    return wrapper


NAMESPACE = types.SimpleNamespace(steps=0, parts=types.SimpleNamespace(seen=[]))
OF_THREAD = threading.local()
OF_THREAD.steps = 0
CONTEXT: contextvars.ContextVar[int] = contextvars.ContextVar("CONTEXT", default=0)
ARRAY = array.array("d", [0.0])
BYTES = bytearray(b"\0")
DECIMAL = decimal.Decimal(0)
PARTIAL = partial(sum, [0])


class Space(Base):
    def factor(self):
        NAMESPACE.steps += 1
        return 1 / NAMESPACE.steps


class OfThread(Base):
    def factor(self):
        OF_THREAD.steps += 1
        return 1 / OF_THREAD.steps


class Context(Base):
    def factor(self):
        CONTEXT.set(CONTEXT.get() + 1)
        return 1 / CONTEXT.get()


class SpaceOfClass(Base):
    mine = types.SimpleNamespace(steps=0)

    def factor(self):
        self.mine.steps += 1
        return 1 / self.mine.steps


class Text(Base):
    def factor(self):
        globals()["BY_TEXT"] = globals().get("BY_TEXT", 0) + 1
        return 1 / globals()["BY_TEXT"]


class Array(Base):
    def factor(self):
        ARRAY[0] += 1
        return 1 / ARRAY[0]


class Bytes(Base):
    def factor(self):
        BYTES[0] = (BYTES[0] + 1) % 256
        return 1 / (1 + BYTES[0])


class Decimals(Base):
    def factor(self):
        global DECIMAL
        DECIMAL += 1
        return 1 / DECIMAL


class Partial(Base):
    def factor(self):
        PARTIAL.args[0].append(1)
        return 1 / PARTIAL()


class Decorated(Base):
    @torch.no_grad()
    @counting
    def factor(self):
        return 1.0


class ClosedMethod(Base):
    again = staticmethod(made_counter())

    def factor(self):
        return 1 / self.again()


class Counter(Base):
    steps = 0

    def factor(self):
        Counter.steps += 1
        return 1 / Counter.steps


class List(Base):
    history: ClassVar[list[float]] = []

    def factor(self):
        self.history.append(float(self.param_groups[0]["params"][0].grad.norm()))
        return 1 / sum(self.history)


class Dict(Base):
    seen: ClassVar[dict[str, Any]] = {"steps": 0, "norms": {}}

    def factor(self):
        self.seen["steps"] += 1
        self.seen["norms"][self.seen["steps"]] = 0.5
        return len(self.seen["norms"]) / self.seen["steps"] ** 2


class Buffer(Base):
    buffer = torch.zeros(())

    def factor(self):
        Buffer.buffer = 0.9 * Buffer.buffer + self.param_groups[0]["params"][0].grad.norm()
        return 1 / Buffer.buffer


class InPlace(Base):
    sums = torch.zeros(2)

    def factor(self):
        self.sums.add_(1)
        return 1 / self.sums[0]


class Created(Base):
    """Makes the attribute of its class at the first step."""

    def factor(self):
        Created.made = getattr(Created, "made", 0) + 1
        return 1 / Created.made


class Named(Base):
    """Makes a global of its module at the first step."""

    def factor(self):
        global LATER
        LATER = LATER + 1 if "LATER" in globals() else 1
        return 1 / LATER


class Global(Base):
    def factor(self):
        global COUNT
        COUNT += 1
        return 1 / COUNT


class GlobalDict(Base):
    def factor(self):
        MEMORY["norm"] = MEMORY.get("norm", 0) + self.param_groups[0]["params"][0].grad.norm()
        return 1 / MEMORY["norm"]


def bump():
    bump.calls += 1
    return bump.calls


bump.calls = 0


class Helped(Base):
    """Counts in an attribute of another function."""

    def factor(self):
        return 1 / bump()


class Clock:
    time = 0


class OtherClass(Base):
    def factor(self):
        Clock.time += 1
        return 1 / Clock.time


class ThroughModule(Base):
    def factor(self):
        MINE.CONFIG["scale"] *= 0.8
        return MINE.CONFIG["scale"]


class Momentum(Base):
    """Momentum in a global, by parameter."""

    def __init__(self, params):
        super().__init__(params)
        for p in self.param_groups[0]["params"]:
            BY_PARAMETER[p] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            BY_PARAMETER[p].mul_(0.9).add_(p.grad)
            p.sub_(BY_PARAMETER[p], alpha=0.01)


class Draws(Base):
    arrays = np.random.default_rng(5)
    tensors = torch.Generator().manual_seed(4)

    def factor(self):
        rand = torch.rand((), generator=self.tensors)
        return DRAWS.random() + self.arrays.random() + rand


class Last(Base):
    """Keeps itself on its class."""

    last: "Last | None" = None

    def __init__(self, params):
        super().__init__(params)
        self.n = 0
        Last.last = self

    def factor(self):
        Last.last.n += 1
        return 1 / self.n


class Wrapper(Base):
    """Its own class has no memory, that of the optimizer inside has."""

    def __init__(self, params):
        super().__init__(params)
        self.inner = Counter(self.param_groups)

    def factor(self):
        return self.inner.factor()


class Default(Base):
    """Counts in a default, which Python makes once for all calls."""

    def factor(self, steps=[0]):  # noqa: B006
        steps[0] += 1
        return 1 / steps[0]


class KeywordDefault(Base):
    def factor(self, *, seen={"steps": 0}):  # noqa: B006
        seen["steps"] += 1
        return 1 / seen["steps"]


OPTIMIZERS = [
    Counter, List, Dict, Buffer, InPlace, Created, Named, Global, GlobalDict, Helped, OtherClass,
    ThroughModule, Momentum, Draws, Last, Wrapper, Default, KeywordDefault, Closed, ClosedMethod,
    Decorated, Space, OfThread, Context, SpaceOfClass, Partial, Text,
]  # fmt: skip


class Net(nn.Module):
    def __init__(self, input_shape, classes):
        super().__init__()
        self.layer = nn.Linear(input_shape[0], classes)

    def scale(self):
        return 1.0

    def forward(self, x):
        return self.layer(x) * self.scale()


class CountingNet(Net):
    calls = 0

    def scale(self):
        if self.training:
            CountingNet.calls += 1
        return 1 + 1 / (1 + CountingNet.calls)


class GlobalNet(Net):
    def scale(self):
        global COUNT
        COUNT += self.training
        return 1 + 1 / (1 + COUNT)


class Numbered(nn.Module):
    """A layer that knows how many were made before, as those do that scale by depth."""

    made = 0

    def __init__(self):
        super().__init__()
        Numbered.made += 1
        self.scale = Numbered.made

    def forward(self, x):
        return x * self.scale


def numbered(input_shape, classes):
    return nn.Sequential(Numbered(), nn.Linear(input_shape[0], classes), Numbered())


class Normed(nn.Module):
    """A part with statistics on its class."""

    mean = torch.zeros(5)

    def forward(self, x):
        if self.training:
            Normed.mean = Normed.mean.lerp(x.mean(0), 0.1)
        return x - Normed.mean


def normed(input_shape, classes):
    return nn.Sequential(Normed(), nn.Linear(input_shape[0], classes))


MODELS = [CountingNet, GlobalNet, numbered, normed]


class CountingLoss(nn.Module):
    calls = 0

    def forward(self, outputs, targets):
        CountingLoss.calls += outputs.requires_grad
        return F.cross_entropy(outputs / (1 + 0.1 * CountingLoss.calls), targets)


def global_loss(outputs, targets):
    global COUNT
    COUNT += outputs.requires_grad
    return F.cross_entropy(outputs / (1 + 0.1 * COUNT), targets)


def called_loss(outputs, targets):
    called_loss.calls += outputs.requires_grad
    return F.cross_entropy(outputs / (1 + 0.1 * called_loss.calls), targets)


called_loss.calls = 0


class Remembering:
    """A loss that counts in the object, of which a problem has one for all runs."""

    def __init__(self):
        self.calls = 0

    def __call__(self, outputs, targets):
        self.calls += outputs.requires_grad
        return F.cross_entropy(outputs / (1 + 0.1 * self.calls), targets)


LOSSES = {
    "module_loss": losses.as_function(CountingLoss()),
    "global_loss": global_loss,
    "called_loss": called_loss,
    "remembering": Remembering(),
}


class Slowing(lr_scheduler.LRScheduler):
    steps = 0

    def get_lr(self):
        Slowing.steps += 1
        return [group["initial_lr"] / Slowing.steps for group in self.optimizer.param_groups]


SGD = partial(torch.optim.SGD, lr=0.05)
UNSAVED = [Array, Bytes, Decimals]  # which no checkpoint holds
KINDS: dict[str, dict[str, Any]] = {
    **{cls.__name__: {"optimizer": cls} for cls in OPTIMIZERS},
    **{made.__name__: {"model": made} for made in MODELS},
    **{name: {"loss": loss} for name, loss in LOSSES.items()},
    "schedule": {"schedule": Slowing},
}


@pytest.fixture
def make(make_problem) -> Callable[..., Training]:
    """Make a training of a kind of `KINDS`."""

    def made(kind: str, seed: int = 0) -> Training:
        asked = {"optimizer": SGD, "model": Net, "loss": losses.cross_entropy, **KINDS[kind]}
        problem = make_problem(asked.pop("model"), loss=asked.pop("loss"))
        return Training(problem, asked.pop("optimizer"), seed=seed, log_every=1, **asked)

    return made


def curve(training: Training, stop_at: int | None = None) -> list[float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optbench.training.loop.SYNC_EVERY", 1)
        updates = training.updates(lambda: training.step + 1 == stop_at)
        return [row["train_loss"] for update in updates for row in update.steps]


def stored(training: Training) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(training.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_classes_and_modules_resumes(make, kind):
    stopped = make(kind)
    first = curve(stopped, 4)
    state = stored(stopped)
    whole = curve(make(kind))
    curve(make(kind, seed=1))
    resumed = make(kind)
    resumed.load_state_dict(state)
    assert first + curve(resumed) == whole
    assert len(whole) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_one_process_do_not_disturb_each_other(make, kind):
    alone = curve(make(kind, seed=1))
    curve(make(kind, seed=0))
    assert curve(make(kind, seed=1)) == alone


@pytest.mark.parametrize("cls", UNSAVED)
def test_memory_that_cannot_be_saved_belongs_to_its_run_and_restarts_it(make_problem, cls):
    def made() -> Training:
        return Training(make_problem(Net), cls, log_every=1)

    training = made()
    assert saved_state.unsaveable(training) == ""
    alone = curve(training)
    assert "global state" in saved_state.unsaveable(training)
    assert curve(made()) == alone
    options = {"seed": 0, "decay_biases_and_norms": True, "device": torch.device("cpu")}
    assert step_cost.cost_of_run(make_problem(Net), cls, **options)["steps"] >= 20
    assert curve(made()) == alone


def test_a_generator_in_a_module_is_refused(make_problem, monkeypatch):
    monkeypatch.setattr(MINE, "COUNT", (n for n in range(9)))
    with pytest.raises(UserError, match=r"test_global_state.COUNT is a generator.* in __init__"):
        Training(make_problem(Net), Global)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_that_alternate_do_not_disturb_each_other(make, kind):
    alone = [curve(make(kind, seed)) for seed in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optbench.training.loop.SYNC_EVERY", 1)
        both = [make(kind, seed).updates() for seed in (0, 1)]
        pairs = list(zip(*both, strict=True))
    for k in (0, 1):
        assert [row["train_loss"] for pair in pairs for row in pair[k].steps] == alone[k]


@pytest.mark.parametrize("kind", ["Counter", "CountingNet", "global_loss"])
def test_runs_begin_with_the_memory_that_building_their_objects_leaves(make, kind):
    training = make(kind)
    before = COUNT, Counter.steps, CountingNet.calls
    first = curve(training)
    assert (COUNT, Counter.steps, CountingNet.calls) != before
    make(kind)  # tries the model and the loss
    assert (COUNT, Counter.steps, CountingNet.calls) == before
    assert curve(make(kind)) == first


def test_trials_and_measurements_leave_global_state_as_it_was(make_problem):
    class Closing(Counter):
        def step(self, closure):
            with torch.enable_grad():
                closure()
            super().step()

    problem = make_problem(CountingNet, loss=global_loss)
    training = Training(problem, Counter)
    before = COUNT, Counter.steps, CountingNet.calls
    updates = training.updates()
    next(updates)
    options = {"seed": 0, "decay_biases_and_norms": True, "device": torch.device("cpu")}
    assert step_cost.cost_of_run(problem, Closing, **options)["steps"] >= 20
    run_optimizer(FUNCTIONS["beale"](), Closing, steps=5)
    closures.evaluates_first(lambda model: Closing(model.parameters()), training.model)
    assert (COUNT, Counter.steps, CountingNet.calls) == before
    list(updates)
    assert Counter.steps == training.step


class Ahead(Base):
    """Moves the weights before it evaluates, the less the longer."""

    steps = 0

    def step(self, closure):
        Ahead.steps += 1
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.mul_(1 - 0.1 / Ahead.steps)
        with torch.enable_grad():
            loss = closure()
        super().step()
        return loss


def test_both_optimizers_of_a_probe_find_the_same_memory():
    assert closures.evaluates_first(lambda model: Ahead(model.parameters()), nn.Linear(2, 2))


@pytest.mark.filterwarnings("ignore:no difference can be shown")
def test_comparisons_do_not_depend_on_the_order_of_runs(make_problem):
    problem = make_problem(CountingNet)
    options = {"seeds": 2, "progress": False}
    first = compare(problem, {"a": Counter, "b": GlobalDict}, **options).table
    second = compare(problem, {"b": GlobalDict, "a": Counter}, **options).table
    for name in ("a", "b"):
        losses_of = [table[table.optimizer == name].train_loss for table in (first, second)]
        assert list(losses_of[0]) == list(losses_of[1])


class Scaled(Net):
    factor = 1.0

    def scale(self):
        return self.factor * CONFIG["scale"]


def one_run(problem, optimizer=SGD):
    return [row["train_loss"] for u in train(problem, optimizer, log_every=1) for row in u.steps]


def test_what_the_caller_changes_between_runs_stays(make_problem, monkeypatch):
    problem = make_problem(Scaled)
    monkeypatch.setattr(MINE, "CONFIG", {"scale": 1.0})
    plain = one_run(problem)
    CONFIG["scale"] = 2.0  # changed in place
    scaled = one_run(problem)
    assert scaled != plain
    monkeypatch.setattr(MINE, "CONFIG", {"scale": 1.0})  # set anew
    assert one_run(problem) == plain
    monkeypatch.setattr(Scaled, "factor", 2.0)
    assert one_run(problem) == scaled
    suspended = train(problem, SGD)
    next(suspended)
    Scaled.factor = 1.0
    assert one_run(problem) == plain
    assert suspended


def test_what_a_run_remembered_is_there_to_be_looked_at(make, monkeypatch):
    monkeypatch.setattr(List, "history", mine := [])
    curve(make("List"))
    assert len(mine) == len(List.history) == 6
    monkeypatch.setattr(List, "history", other := [1.0])
    curve(make("List"))
    assert len(mine) == 6
    assert len(other) == 7


def test_a_failed_run_disturbs_no_other(make_problem):
    class Failing(Counter):
        def factor(self):
            if Counter.steps == 3:
                raise RuntimeError("stop")
            return super().factor()

    alone = one_run(make_problem(), Counter)
    with pytest.raises(Exception, match="stop"):
        one_run(make_problem(), Failing)
    assert one_run(make_problem(), Counter) == alone


TOOLS: dict[str, Any] = {
    "console": rich.console.Console(),
    "lock": threading.Lock(),
    "file": sys.stdout,
    "type": Union[int, str],  # noqa: UP007
    "union": int | str,
    "array function": np.add,
    "decorated": torch.no_grad()(lambda x: x),
    "table": {"half": torch.no_grad()(lambda x: x / 2), "n": 3, "class": nn.ReLU, "f": F.relu},
    "layers": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
}


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("where", [Counter, MINE])
def test_tools_on_a_class_or_in_a_module_keep_no_run_from_its_checkpoint(
    make, monkeypatch, name, where
):
    monkeypatch.setattr(where, "COUNT" if where is MINE else "tool", TOOLS[name], raising=False)
    training = make("Counter")
    if where is MINE:
        training.global_state.see(Global)
    assert saved_state.unsaveable(training) == ""
    curve(training, 2)
    assert list(stored(training)["objects"]["tree"]) == [
        "model", "optimizer", "scheduler", "global state",
    ]  # fmt: skip


class Opened:
    def __init__(self):
        self.file = io.StringIO()


@functools.cache
def scale_of(examples: int) -> Tensor:
    return 1 + torch.rand(())


class CachedNet(Net):
    def forward(self, x):
        return super().forward(x) * scale_of(len(x))


class CachedAtBuild(Net):
    @staticmethod
    @functools.lru_cache
    def width() -> float:
        return float(torch.rand(()))

    def __init__(self, input_shape, classes):
        super().__init__(input_shape, classes)
        self.factor = self.width()

    def forward(self, x):
        return super().forward(x) * (self.factor + self.width())


def test_a_filled_cache_restarts_the_run_and_serves_no_other(make_problem):
    def make_cached(model: type[nn.Module]) -> Training:
        return Training(make_problem(model), SGD, log_every=1)

    training = make_cached(CachedNet)
    assert saved_state.unsaveable(training) == ""
    alone = curve(training)
    assert saved_state.unsaveable(training) == (
        "global state['the cache of test_global_state.scale_of'] is a filled functools.lru_cache"
    )
    scale_of(10_000)
    assert curve(make_cached(CachedNet)) == alone
    built = make_cached(CachedAtBuild)
    alone = curve(built)
    assert saved_state.unsaveable(built) == ""
    assert curve(make_cached(CachedAtBuild)) == alone


MEMORIES = {
    "object": Opened(),
    "iterator": itertools.count(),
    "in a dictionary": {"n": 0, "lock": threading.Lock()},
    "list of its own kind": type("Own", (list,), {"__module__": __name__})(),
}


@pytest.mark.parametrize("name", MEMORIES)
def test_memory_that_no_checkpoint_can_hold_is_named(make, monkeypatch, name):
    monkeypatch.setattr(Counter, "kept", MEMORIES[name], raising=False)
    assert "test_global_state.Counter.kept" in saved_state.unsaveable(make("Counter"))


def test_values_that_no_run_changed_are_in_no_checkpoint(make, monkeypatch):
    monkeypatch.setattr(Counter, "table", torch.zeros(10_000), raising=False)
    training = make("Counter")
    curve(training, 2)
    tree = stored(training)["objects"]["tree"]["global state"]
    assert [key for key, _ in tree["items"]] == ["test_global_state.Counter.steps"]


def test_classes_of_installed_packages_are_left_alone(make_problem, tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    text = (
        "import torch\nclass Packaged(torch.optim.SGD):\n    steps = 0\n"
        "    def step(self, closure=None):\n        Packaged.steps += 1\n"
        "        return super().step(closure)\n"
    )
    (folder / "packaged_counter.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    from packaged_counter import Packaged

    for runs in (1, 2):
        training = Training(make_problem(), partial(Packaged, lr=0.1))
        assert not training.global_state
        assert "global state" not in saved_state.objects(training)
        curve(training)
        assert Packaged.steps >= runs * training.step


def test_checkpoints_put_no_data_in_the_place_of_code(make):
    first = make("Counter")
    curve(first, 2)
    state = stored(first)
    for name in ("Counter.factor", "Counter.step", "Counter.__init__", "Base.step", "Global.x"):
        tree = state["objects"]["tree"]["global state"]
        tree["items"] = [[f"test_global_state.{name}", 1]]
        training = make("Counter")
        with pytest.raises((ValueError, KeyError)):
            training.load_state_dict(state)
        curve(make("Counter"))


OWN = """
import torch
from torch.nn.functional import cross_entropy

COUNT = 0
SEEN = {}


class Mine(torch.optim.Optimizer):
    steps = 0

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        Mine.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"] / Mine.steps**0.5)


class Net(torch.nn.Module):
    buffer = torch.zeros(())

    def __init__(self, input_shape, classes):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, classes))

    def forward(self, x):
        outputs = self.layers(x)
        if self.training:
            Net.buffer = 0.9 * Net.buffer + outputs.detach().abs().mean()
        return outputs / (1 + Net.buffer)


def loss(outputs, targets):
    global COUNT
    if outputs.requires_grad:
        COUNT += 1
        SEEN[COUNT] = float(outputs.detach().mean())
    return cross_entropy(outputs / (1 + 0.01 * COUNT + sum(SEEN.values()) ** 2), targets)
"""
WORDS = [
    "optimizer._target_=own_memory.Mine", "model._target_=own_memory.Net",
    "loss._target_=own_memory.loss", "data.subset=400", "batch_size=32", "steps=20", "log.steps=1",
    "num_threads=1", "quiet=true",
]  # fmt: skip


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    (tmp_path / "own_memory.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_memory", raising=False)
    return tmp_path


def program(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "optbench", *WORDS, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def curves(folder: Path) -> dict[str, list[str]]:
    """Return the losses by seed."""
    found = {}
    for path in folder.glob("**/steps.csv"):
        with path.open() as file:
            seed = path.parent.name.split("-seed")[1].split("-")[0]
            found[seed] = [row["train_loss"] for row in csv.DictReader(file)]
    return found


@pytest.mark.slow
def test_a_sweep_in_one_process_equals_runs_in_processes_of_their_own(own):
    program("-m", "seed=0,1", "hydra/launcher=basic", "results_dir=together")
    for seed in (0, 1):
        program(f"seed={seed}", "results_dir=apart")
    assert curves(own / "together") == curves(own / "apart")
    assert set(curves(own / "apart")) == {"0", "1"}


def test_a_stopped_run_of_the_command_line_equals_an_undisturbed_one(own, monkeypatch):
    monkeypatch.setattr(plain_loop, "STEPS", 20)

    def losses_of(name: str, stop_at: int | None) -> list[float]:
        config = plain_loop.command_line(own / name, *WORDS[:4])
        return plain_loop.run(config, own / name, stop_at)

    assert losses_of("a", 7) == losses_of("b", None)


def test_a_run_whose_class_keeps_what_cannot_be_saved_says_once_that_it_restarts(
    own, monkeypatch, capsys
):
    tool = "class Tool:\n    def __init__(self):\n        self.file = open('log.txt', 'w')\n\n\n"
    text = OWN.replace("    steps = 0\n", "    steps = 0\n    tool = Tool()\n")
    (own / "own_memory.py").write_text(text.replace("class Mine", f"{tool}class Mine"))
    monkeypatch.setattr(plain_loop, "STEPS", 20)
    config = plain_loop.command_line(own / "a", *WORDS[:4], "checkpoint_seconds=0")
    assert len(plain_loop.run(config, own / "a", 7)) == 20
    said = capsys.readouterr().err
    assert (
        said.count("no checkpoint can be written, since global state['own_memory.Mine.tool']") == 1
    )
