"""Which runs can be trained together: those of exactly known parts that have enough in common."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.nn import BatchNorm1d, BatchNorm2d

from optbench import losses, optimizers, schedules, textbook
from optbench.engines.compiled_mlp import mlp
from optbench.engines.exact_types import (
    holds,
    is_number,
    is_one_of,
    is_untouched,
    is_value,
    torch_is_plain,
    unwrap,
    weights_are_plain,
)
from optbench.model_calls import call_model
from optbench.models import Dropout
from optbench.problem import build_model

Arguments = Mapping[str, Any]  # of `optbench.training.loop.train`
# What a cohort's members have in common beside the problem; the rest is each one's own.
SHARED = {"log_every": 10, "eval_every": 1, "eval_train_examples": None, "eval_test": "each"}
LEAST_MEMBERS, MOST_WEIGHTS, MOST_PRODUCTS = 6, 60_000, 4_000_000  # see `is_faster`

# Layers by exact type, with their parameters and buffers: none draws, counts or looks at values.
WEIGHTS = ("weight", "bias"), ()
NORMED = ("weight", "bias"), ("running_mean", "running_var", "num_batches_tracked")
PLAIN = (
    nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU,
    nn.Flatten, nn.MaxPool2d, nn.ZeroPad2d, Dropout,
)  # fmt: skip
LAYERS: dict[type[nn.Module], tuple[Iterable[str], Iterable[str]]] = {
    nn.Linear: WEIGHTS,
    nn.Conv2d: WEIGHTS,
    BatchNorm1d: NORMED,
    BatchNorm2d: NORMED,
    **dict.fromkeys(PLAIN, ((), ())),
}
LOSSES = (losses.cross_entropy, losses.nll, losses.mse, losses.bce)
# They call their closure once, before they change a weight, and change it in place. Others step by
# signs (Rprop) or in bfloat16 (Muon), which makes much of a rounding.
OPTIMIZERS = (
    *optimizers.ELEMENTWISE,
    *(textbook.GradientDescent, textbook.Momentum, textbook.Adagrad, textbook.RMSProp),
    *(textbook.Adadelta, textbook.Adam),
)
SCHEDULES = (
    *(schedules.constant, schedules.step, schedules.exponential, schedules.cosine),
    *(schedules.warmup_cosine, schedules.warmup_constant, schedules.trapezoid),
    schedules.one_cycle,
)


def group_key(arguments: Arguments) -> Hashable | None:
    """Runs with equal keys can be trained together; None: this one has to run alone.

    What each gives is that of the run alone within the rounding of float32. Equal are the dataset
    (the same object), model, loss, budget and whatever else makes the steps the same. Alone runs
    all that is not of the exact types and functions above, or has anything added to it.
    """
    problem = arguments["problem"]
    device = torch.device(arguments.get("device", "cpu"))
    schedule = arguments.get("schedule")
    known = (
        torch_is_plain()
        and not arguments.get("layers")
        and problem.precision == "float32"
        and _is_made_of(problem.loss, LOSSES)
        and _is_made_of(arguments["optimizer"], OPTIMIZERS)
        and not unwrap(arguments["optimizer"])[1].get("differentiable")
        and (schedule is None or _is_made_of(schedule, SCHEDULES))
    )
    model = _described(problem.model)
    if not known or model is None:
        return None
    same = (
        *(model, _described(problem.loss), problem.batch_size, problem.epochs, problem.steps),
        *(problem.shuffle, problem.weight_penalty, problem.drop_last, device),
        *(arguments.get(name, default) for name, default in SHARED.items()),
    )
    # what a function builds may go by the seed
    kind = (problem.dataset.input_shape, problem.dataset.classes, model, arguments.get("seed", 0))
    if kind not in _built:
        _built[kind] = ""
        with suppress(Exception):  # of anybody's model: alone, it says itself what is wrong
            built = build_model(problem, kind[-1])
            _built[kind] = repr(built) if is_stackable(built) else ""
    return (problem.dataset, *same, _built[kind]) if _built[kind] else None


_built: dict[Hashable, str] = {}  # in this process: the layers; "" where runs have to be alone


def is_faster(arguments: Arguments, members: int) -> bool:
    """Whether so many runs of one `group_key` take less time together than one after another.

    A GPU waits for small models: there always. On one thread of a CPU only the overhead of each
    operation is shared; it was measured on MNIST with batches of 4 to 128: 1.2 to 5 times as fast
    within these bounds, and beyond them, or with convolutions, 0.6 to 1.4 times. Compiled steps
    have no overhead to share.
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
        if arguments.get("compile_steps", True) and mlp.computes(problem, model, optimizer):
            return False
        weights = [p.shape for p in model.parameters()]
    except Exception:  # of anybody's model: alone, it says itself what is wrong
        return False
    size = sum(shape.numel() for shape in weights)
    small = size <= MOST_WEIGHTS and size * problem.batch_examples <= MOST_PRODUCTS
    return small and max(map(len, weights), default=0) <= 2


def is_stackable(model: nn.Module) -> bool:
    """Return whether `torch.func.vmap` gives many such models what each gives alone."""
    parts = list(_parts(model))
    alone = len({id(part) for part in parts}) == len(parts)  # none is called twice
    return alone and weights_are_plain(model) and all(map(_is_known, parts))


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a model's layers; what is no plain sequence of others is one."""
    if type(module) is nn.Sequential and is_untouched(module) and not module._parameters:
        for child in module:
            yield from _parts(child)
    else:
        yield module


def _is_known(layer: nn.Module) -> bool:
    names = LAYERS.get(type(layer))
    if names is None or not is_untouched(layer) or not holds(layer, *names):
        return False
    settings = {k: v for k, v in vars(layer).items() if not k.startswith("_")}
    if isinstance(layer, Dropout):
        settings = {"p": layer.p}
    if isinstance(layer, BatchNorm1d | BatchNorm2d):  # without a momentum it asks for its counter
        return layer.track_running_stats and is_number(layer.momentum)
    return all(map(is_value, settings.values()))


def _is_made_of(factory: Any, functions: Iterable[Callable[..., Any]]) -> bool:
    """Return whether a factory is one of these, with settings that are plain values."""
    function, settings = unwrap(factory)
    return is_one_of(function, functions) and all(map(is_value, settings.values()))


def _described(part: Any) -> Hashable | None:
    """Return what is equal for the same function with equal settings; None for anything else."""
    function, settings = unwrap(part)
    if function is None or not all(map(is_value, settings.values())):
        return None
    return function, repr(sorted(settings.items()))
