"""Warn before training of an optimizer that would surprise the user."""

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from torch import nn

from optbench import losses
from optbench.common.console import warn
from optbench.common.errors import UserError
from optbench.config.build import build
from optbench.formats.keys import RunConfig
from optbench.formats.older_code import targets
from optbench.optimizers import factories_of, share_of_main
from optbench.optimizers.factories import Factory, arguments, name_of, value_of
from optbench.problem import Problem
from optbench.training.loop import Training

LARGEST_RATE = 0.1  # a factor is about 1, so an lr of this or less was meant as a rate
FACTOR_CLASSES = ("AdamG",)  # whose lr is a factor, beside those with a `d0`
HEAVYBALL = "heavyball"
OUTPUT_LAYERS = (nn.Softmax, nn.Sigmoid)
LOGIT_LOSSES = (losses.cross_entropy, losses.nll, losses.bce)
LOGIT_CLASSES = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)
_told: set[str] = set()  # in this process
_looked_at: set[str] = set()  # the optimizers of this process's runs


def tell(config: RunConfig) -> None:
    """Warn, once in a process, of what surprises in a run's optimizer."""
    found = []
    asked = repr(config["optimizer"])
    if asked not in _looked_at:
        _looked_at.add(asked)
        with suppress(UserError):  # a class that cannot be made is reported where it is built
            found = [said for each in factories_of(build("optimizer", config["optimizer"]))
                     if (said := of_factor(each))]  # fmt: skip
    if compiles(config):
        found.append(of_compilation(config["compile"]))
    for text in found:
        if text not in _told:
            _told.add(text)
            warn(text)


def tell_share(factory: Factory, training: Training) -> None:
    """Warn, once in a process, where partners train the larger part of the model."""
    share = share_of_main(factory, training.optimizer, training.model)
    if share is not None and share.is_small and (text := share.words()) not in _told:
        _told.add(text)
        warn(text)


def tell_output(training: Training) -> None:
    """Warn, once in a process, of a model whose last layer does what the loss does again."""
    leaves = [part for part in training.model.modules() if not any(part.children())]
    last = leaves[-1] if leaves else training.model
    if isinstance(last, OUTPUT_LAYERS) and takes_logits(training.problem.loss):
        text = (
            f"{type(training.model).__name__} ends with {type(last).__name__}, and the loss takes "
            f"logits and applies its own: remove the layer, or the model learns slowly"
        )
        if text not in _told:
            _told.add(text)
            warn(text)


def tell_batch(training: Training) -> None:
    """Warn, once in a process, of batches that hold more examples than there are."""
    size, examples = training.problem.batch_size, len(training.problem.dataset.train_y)
    if size in ("full", Problem.batch_size) or int(size) <= examples:
        return  # the default size was not asked for
    text = (
        f"batch_size={size} is more than the {examples:,} training examples: each step takes all, "
        f"as with batch_size=full"
    )
    if text not in _told:
        _told.add(text)
        warn(text)


def takes_logits(loss: Callable[..., Any]) -> bool:
    """Return whether a loss is known to apply a function of its own to a model's outputs."""
    loss, given = getattr(loss, "func", loss), getattr(loss, "keywords", {})
    if loss is losses.mse:
        return bool(given.get("output", "softmax") != "linear")
    return loss in LOGIT_LOSSES or isinstance(getattr(loss, "module", loss), LOGIT_CLASSES)


def of_factor(factory: Factory) -> str:
    """Return a warning if an lr that is a factor was given as a rate, or "".

    Such a class finds its own step size, and multiplies it by lr, which is 1 by default.
    """
    given = value_of(factory, "lr")
    usual = {p.name: p.default for p in arguments(_class(factory))}
    own_rate = "d0" in usual or name_of(factory) in FACTOR_CLASSES
    if not own_rate or usual.get("lr") != 1 or not isinstance(given, int | float):
        return ""
    if not 0 < given <= LARGEST_RATE:
        return ""
    return (
        f"{name_of(factory)} finds its own step size, and its lr is a factor of it: 1 by default, "
        f"and {given:g} was given, so that it learns {1 / given:g} times as slowly as its authors "
        f"mean"
    )


def _class(factory: Factory) -> Any:
    while hasattr(factory, "func"):
        factory = factory.func
    return factory


def compiles(config: RunConfig) -> bool:
    """Return whether a class of heavyball, which compiles its steps, is the optimizer."""
    return any(name.startswith(f"{HEAVYBALL}.") for name in targets(config["optimizer"]))


def of_compilation(asked: bool) -> str:
    """Return a warning about heavyball's compilation. asked: by compile=true."""
    if asked:
        return (
            "heavyball compiles each of its steps by torch.compile, which takes minutes before the "
            "first step: compile=false leaves that out"
        )
    return (
        "heavyball would compile each of its steps by torch.compile, which takes minutes; optbench "
        "has switched that off (heavyball.utils.compile_mode = None), and compile=true leaves it on"
    )


def switch_compilation(config: RunConfig) -> None:
    """Let heavyball compile its steps only where compile=true asks for it."""
    if not compiles(config) or config["compile"]:
        return
    with suppress(ImportError):
        import_module(HEAVYBALL)
        utils: Any = sys.modules[f"{HEAVYBALL}.utils"]
        utils.compile_mode = None
