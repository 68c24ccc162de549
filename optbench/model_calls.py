"""Call the function of a model by the names of its parameters, never by guessing.

optbench's own models are functions of `(input_shape, classes)`. Models of others have their own
names for these (`num_classes`, `in_features`), and other parameters first: torchvision's begin with
the pretrained weights.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any

from torch import nn

from optbench.common.errors import UserError, call_of
from optbench.datasets.torchvision_shim import with_torchvision
from optbench.trees import Parts

Shape = tuple[int, ...]
SHAPE_NAMES: dict[str, Callable[[Shape], object]] = {
    "input_shape": tuple,
    "in_features": prod,
    "input_dim": prod,
    "in_channels": lambda shape: shape[0],
    "in_chans": lambda shape: shape[0],
    "seq_len": lambda shape: _steps(shape),
    "sequence_length": lambda shape: _steps(shape),
    "input_size": lambda shape: shape[-1] if len(shape) <= 2 else None,  # as of nn.LSTM
    "n_features": lambda shape: shape[-1] if len(shape) <= 2 else None,
}
VECTOR_NAMES = ("in_features", "input_dim")  # parameters of models that take vectors
CLASS_NAMES = (
    "classes", "num_classes", "n_classes", "out_features", "output_dim", "outputs", "num_outputs",
)  # fmt: skip
VOCABULARY_NAMES = ("vocabulary", "vocab_size", "num_embeddings", "num_tokens", "n_tokens")
CARDINALITIES = "cardinalities"  # of categories to look up, among the examples
WRITE_OWN = (
    "Write a function of your own: def net(input_shape, classes): return ..., and give that "
    "(from Python), or model._target_=FILE.net"
)
NOTHING: Mapping[str, Any] = {}


def call_model(
    factory: Callable[..., Any],
    input_shape: Shape,
    classes: int,
    vocabulary: int = 0,
    told: Mapping[str, Any] = NOTHING,
) -> nn.Module:
    """Return the model that `factory` makes for an input shape and so many classes.

    vocabulary: the number of different integers among the inputs; 0: these are real numbers.
    told: what the task tells models, by the names of their parameters (`Task.told_models`).
    Parameters without a name in `SHAPE_NAMES` or `CLASS_NAMES` keep their defaults. A parameter
    `in_features` asks for vectors: examples of more dimensions are then flattened first. Raises
    `UserError` if the signature does not say how to call the function.
    """
    args, named = arguments(factory, input_shape, classes, vocabulary, told)
    if CARDINALITIES in told and CARDINALITIES not in named:
        raise UserError(
            f"with dataset.nominal=embedding the last inputs are numbers of categories, and the "
            f"model {call_of(factory)} has no parameter {CARDINALITIES}: take model=tabular_mlp, "
            f"or dataset.nominal=onehot"
        )
    model = with_torchvision(lambda: factory(*args, **named))
    if not isinstance(model, nn.Module):
        raise TypeError(f"its function gave a {type(model).__name__}, and no nn.Module")
    if isinstance(input_shape, dict):
        return OfSeveralInputs(model)
    if len(input_shape) > 1 and any(name in VECTOR_NAMES for name in named):
        return nn.Sequential(nn.Flatten(), model)
    return model


class OfSeveralInputs(nn.Module):
    """A model whose forward takes several inputs, by name or in their order."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Parts) -> Any:
        inputs = x.plain()
        return self.model(**inputs) if isinstance(inputs, dict) else self.model(*inputs)


def arguments(
    factory: Callable[..., Any],
    input_shape: Shape,
    classes: int,
    vocabulary: int = 0,
    told: Mapping[str, Any] = NOTHING,
) -> tuple[list[Any], dict[str, Any]]:
    """Return the positional and the named arguments of a call of `factory`."""
    name = getattr(inner(factory), "__name__", type(inner(factory)).__name__)
    if isinstance(inner(factory), nn.Module):
        raise UserError(
            f"the model is a {name} that is made already, and each run needs one of its own. "
            f"{WRITE_OWN} (in a YAML, with _partial_: true)"
        )
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the model {name} does not say which arguments it takes. {WRITE_OWN}"
        ) from error
    bound = _bound(factory)
    free = [p for p in parameters if p.name not in bound]
    args: list[Any] = []
    named: dict[str, Any] = {}
    unknown: list[str] = []
    for p in free:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        value = told.get(p.name, _value(p, input_shape, classes, vocabulary))
        if value is None:
            if p.default is p.empty:
                unknown.append(p.name)
            elif p.name.startswith("weights") and p.default is not None:
                named[p.name] = None  # pretrained weights would be downloaded
        elif p.kind is p.POSITIONAL_ONLY:
            args.append(value)
        else:
            named[p.name] = value
    if unknown and not inspect.isclass(inner(factory)) and _takes_two(free):
        return [input_shape, classes], {}
    if unknown:
        raise UserError(
            f"the model {name} needs {' and '.join(unknown)}, and optbench can give the shape of "
            f"the examples {input_shape} and the number of outputs ({classes}): call these "
            f"parameters input_shape or in_features, and outputs, or set "
            f"{', '.join(f'+model.{key}=VALUE' for key in unknown)}, or write a function: "
            f"def net(input_shape, outputs): return ... (model._target_=FILE.net)"
        )
    kinds = {p.kind for p in free}
    if not args and not named and inspect.Parameter.VAR_POSITIONAL in kinds:
        if inspect.isclass(inner(factory)):
            raise UserError(f"the model {name} does not say which arguments it takes. {WRITE_OWN}")
        return [input_shape, classes], {}
    taken = {*named, *bound}
    if inspect.Parameter.VAR_KEYWORD in kinds and not taken & {*CLASS_NAMES}:
        named["classes" if "input_shape" in named else "num_classes"] = classes
    return args, named


def _value(p: inspect.Parameter, input_shape: Shape, classes: int, vocabulary: int) -> Any:
    """Return the value for a parameter; None if its name is not known."""
    if isinstance(input_shape, dict):  # of several inputs, each by its name
        for name, shape in input_shape.items():
            if p.name == f"{name}_shape":
                return shape
        if p.name == "input_shape":
            return input_shape
    elif p.name in SHAPE_NAMES:
        return SHAPE_NAMES[p.name](input_shape)
    if p.name in CLASS_NAMES:
        return classes
    if p.name in VOCABULARY_NAMES and vocabulary:
        return vocabulary
    if p.default is p.empty and "shape" in p.name:
        return input_shape
    if p.default is p.empty and "classes" in p.name:
        return classes
    return None


def _steps(shape: Shape) -> int | None:
    """Return the length of a sequence or a clip; None for an image."""
    return shape[0] if len(shape) != 3 else None


def _takes_two(free: list[inspect.Parameter]) -> bool:
    """Return whether two parameters need values, with neutral names as `lambda s, c:`."""
    needed = [p for p in free if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if len(needed) != 2 or any(p.kind in (p.VAR_POSITIONAL, p.KEYWORD_ONLY) for p in needed):
        return False
    first, second = (p.name.strip("_") for p in needed)
    return (len(first) <= 1 or "shape" in first) and (len(second) <= 1 or "classes" in second)


def inner(factory: Any) -> Any:
    """Return the function or class inside partial calls."""
    while isinstance(factory, partial):
        factory = factory.func
    return factory


def _bound(factory: Any) -> set[str]:
    """Return the names that partial calls have given values."""
    names: set[str] = set()
    while isinstance(factory, partial):
        names |= set(factory.keywords)
        factory = factory.func
    return names
