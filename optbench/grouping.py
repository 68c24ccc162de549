"""Which runs can be trained together: what they must have in common, found out by trying it."""

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench import dense, optimizers
from optbench.evaluation import objective
from optbench.losses import is_own
from optbench.model_calls import call_model
from optbench.models import draw_from
from optbench.problem import Problem, build_model, stream
from optbench.stack import Masks, Stack

Arguments = Mapping[str, Any]  # of `optbench.training.train`
# What a cohort's members have in common beside the problem; the rest is each one's own.
SHARED = {"log_every": 10, "eval_every": 1, "eval_train_examples": None, "eval_test": "each"}
LEAST_MEMBERS, MOST_WEIGHTS, MOST_PRODUCTS = 6, 60_000, 4_000_000  # see `is_faster`


def group_key(arguments: Arguments) -> Hashable | None:
    """Runs with equal keys can be trained together; None: this one has to run alone.

    What each gives is that of the run alone within the rounding of float32. Adam and the like make
    much of it where a gradient is nothing but rounding (of constant inputs before a batch norm).

    Equal are the dataset (the same object), model, loss, budget and whatever else makes the steps
    the same. Alone run: diagnostics; optimizers that look for gradients at other weights (lbfgs);
    models that `torch.func.vmap` refuses, or that draw random numbers in a way of their own;
    losses that are not optbench's.
    """
    problem = arguments["problem"]
    device = torch.device(arguments.get("device", "cpu"))
    if arguments.get("layers") or not takes_gradients(arguments["optimizer"]):
        return None
    if not is_own(problem.loss):  # of many examples it may be no mean of each one's
        return None
    same = (
        *(_described(part) for part in (problem.model, problem.loss)),
        *(problem.batch_size, problem.epochs, problem.steps, problem.shuffle, problem.precision),
        *(problem.weight_penalty, problem.drop_last, device),
        *(arguments.get(name, default) for name, default in SHARED.items()),
    )
    kind = (problem.dataset.input_shape, problem.dataset.classes, *same)
    if kind not in _vectorisable:
        _vectorisable[kind] = is_vectorisable(problem, device)
    return (problem.dataset, *same) if _vectorisable[kind] else None


_vectorisable: dict[Hashable, bool] = {}  # tried in this process


def is_faster(arguments: Arguments, members: int) -> bool:
    """Whether so many runs of one `group_key` take less time together than one after another.

    A GPU waits for small models: there always. On one thread of a CPU only the overhead of each
    operation is shared; it was measured on MNIST with batches of 4 to 128: 1.2 to 5 times as fast
    within these bounds, and beyond them, or with convolutions, 0.6 to 1.4 times. Recorded steps
    have next to no overhead to share: against those 0.5 to 1.1 times. Compiled ones have none.
    """
    if torch.device(arguments.get("device", "cpu")).type != "cpu":
        return members > 1
    problem = arguments["problem"]
    if members < LEAST_MEMBERS:
        return False
    try:
        with torch.device("meta"):  # what is too large for this process is not made here
            model = call_model(problem.model, problem.dataset.input_shape, problem.dataset.classes)
            optimizer = optimizers.build(arguments["optimizer"], model)
        if arguments.get("compile_steps", True) and dense.computes(problem, model, optimizer):
            return False
        weights = [p.shape for p in model.parameters()]
    except Exception:  # of anybody's model: alone, it says itself what is wrong
        return False
    size = sum(shape.numel() for shape in weights)
    small = size <= MOST_WEIGHTS and size * problem.batch_examples <= MOST_PRODUCTS
    return small and max(map(len, weights), default=0) <= 2


def is_vectorisable(problem: Problem, device: torch.device) -> bool:
    """Try two models on four examples: together they must give what each gives alone."""
    data = problem.dataset
    x, y = data.train_x[:4].to(device), data.train_y[:4].to(device)
    try:
        models = [build_model(problem, seed).to(device) for seed in (0, 1)]
        masks = Masks(problem, device)
        noises = [stream(0, "dropout", device) for _ in models]
        for model, noise in zip(models, noises, strict=True):
            draw_from(model, noise)
        alone = [objective(problem, model, x, y) for model in models]
        drawn = masks.draw(len(y), [stream(0, "dropout", device)])
        stack = Stack(problem, build_model(problem, 0).to(device), models)
        together, _ = stack.gradients(x, y, {k: v[0] for k, v in drawn.items()}, shared=True)
        stack.scores(x, y)
    except Exception:  # of anybody's model: what cannot be grouped runs alone, and says why itself
        return False
    near = 1e-4 if problem.precision == "float32" else 0.05
    return torch.allclose(together, torch.stack(alone).detach(), rtol=near, atol=near)


def takes_gradients(optimizer: Callable[..., Optimizer]) -> bool:
    """Whether each step calls its closure at most once, before it has changed any weight, and
    changes weights in place: they are parts of others' tensors.
    """
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    weights = list(model.parameters())
    calls, moved = 0, False

    def closure() -> Tensor:
        nonlocal calls, moved
        calls += 1
        moved = moved or any(not torch.equal(p, b) for p, b in zip(weights, before, strict=True))
        return torch.ones(())

    with torch.random.fork_rng(devices=[]):
        try:
            opt = optimizers.build(optimizer, model)
            if callable(switch := getattr(opt, "train", None)):
                switch()
            places, remembered = [p.data_ptr() for p in weights], ""
            for number in range(1, 4):  # a look-ahead has nowhere to look at the first step
                before = [p.detach().clone() for p in weights]
                for p in weights:
                    p.grad = torch.randn(p.shape, generator=generator)
                opt.step(closure)  # type: ignore[arg-type]  # the stubs: a float
                if calls > number or moved or places != [p.data_ptr() for p in weights]:
                    return False
                if number > 1 and optimizers.memory(opt) != remembered:
                    return False  # a later step may be of another kind
                remembered = optimizers.memory(opt)
        except Exception:  # of any package's optimizer: alone, it says itself what is wrong
            return False
    return True


def _described(part: Any) -> Hashable:
    """Equal for equal functions with equal arguments."""
    if isinstance(part, partial):
        settings = sorted((name, repr(value)) for name, value in part.keywords.items())
        return _described(part.func), repr(part.args), tuple(settings)
    return part if isinstance(part, Hashable) else id(part)
