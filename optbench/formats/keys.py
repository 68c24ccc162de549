"""The one table of the config keys: their types, roles, checks and earlier values.

A key takes one line here, one in its YAML, and its use. All lists of keys are derived from the
table. The table is in `formats`, without torch and Hydra, since the readers need the roles as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import Flag, auto
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    get_type_hints,
    is_typeddict,
)

Node = dict[str, Any]  # a `_target_` with its arguments


ENGINES = ("auto", "plain", "compiled_mlp", "compiled_gradients")


class Role(Flag):
    """The role of a key: which identities, names, commands and files it belongs to."""

    PROBLEM = auto()  # part of the problem, which all compared optimizers share
    RUN = auto()  # the rest of a run's identity
    GROUP = auto()  # chosen by the name of a file, as in optimizer=sgd; the group names code
    SERIES = auto()  # the optimizer's side of a run
    SOURCE = auto()  # where the data come from; the identity has their bytes instead
    PATH = auto()  # a path on this machine
    COSMETIC = auto()  # changes no comparison, and is no part of a sweep's name
    NO_EFFECT = auto()  # does not decide whether a run succeeds or fails
    SWEEP = auto()  # has one value in a whole sweep, and is no part of the command of a run
    TUNING = auto()  # for a tuned study alone
    STUDY = auto()  # set by a tuned study, never by hand
    UNRECORDED = auto()  # not kept in run.json
    ENDING = auto()  # for the figures at a sweep's end: checked there, and not kept in run.json


PROBLEM, RUN, GROUP, SERIES, SOURCE, PATH, COSMETIC = list(Role)[:7]
NO_EFFECT, SWEEP, TUNING, STUDY, UNRECORDED, ENDING = list(Role)[7:]
COMMAND = COSMETIC | NO_EFFECT | SWEEP  # the behaviour and output of one command
NESTED = Role(0)  # a key inside a key, which has the roles


class Count(NamedTuple):
    """The check of a whole number."""

    least: int
    meaning: str  # what it counts
    null: bool = False


class Choice(NamedTuple):
    """The check of a value that is one of a few."""

    allowed: tuple[str | bool | None, ...]


class Switch(NamedTuple):
    """The check of true or false."""


class Key(NamedTuple):
    """The properties of a config key.

    before: the value that earlier versions without the key had; `...` for the first keys. With this
    value a run's identity leaves the key out, so that earlier runs keep their identity.
    check: None for keys with any value, or with a check in `config.validate`.
    """

    role: Role = NESTED
    check: Count | Choice | Switch | None = None
    before: Any = ...


class DataConfig(TypedDict):
    """The keys of `data`."""

    root: Annotated[str, Key(SOURCE | PATH | COSMETIC)]
    download: Annotated[bool, Key(SOURCE, Switch())]
    path: Annotated[str | None, Key(SOURCE | PATH, before=None)]
    val_size: Annotated[float, Key()]
    split_seed: Annotated[int, Key(NESTED, Count(0, "a number that names the split"))]
    subset: Annotated[int | None, Key(NESTED, Count(2, "training examples", null=True))]
    targets: Annotated[str, Key(NESTED, Choice(("labels", "inputs", "binary")), before="labels")]
    target: Annotated[str | None, Key(before=None)]
    test_size: Annotated[float, Key(before=0.2)]
    shift: Annotated[float, Key(before=0.0)]
    layout: Annotated[
        str, Key(NESTED, Choice(("channels_first", "channels_last")), before="channels_first")
    ]


class LogConfig(TypedDict):
    """The keys of `log`."""

    steps: Annotated[int, Key(NESTED, Count(1, "steps between rows of steps.csv"))]
    eval_epochs: Annotated[int, Key(NESTED, Count(1, "epochs between evaluations"))]
    eval_train_examples: Annotated[
        int | None, Key(NESTED, Count(1, "training examples", null=True))
    ]
    layer_steps: Annotated[
        int | None,
        Key(NESTED, Count(1, "steps between rows of layers.csv", null=True), before=None),
    ]
    eval_test: Annotated[str, Key(COSMETIC, Choice(("each", "end", "never")))]
    optimizer: Annotated[list[str] | None, Key(NESTED, before=None)]


# `training.recipes` checks the keys of the recipe
NO_AVERAGING = {"kind": None, "decay": 0.999, "start": 0.75}
NO_EARLY_STOPPING = {"patience": None, "metric": "val_loss"}
NO_TARGET = {"metric": "val_loss", "value": None}
NO_AUGMENTATION = {"crop": 0, "flip": False, "cutout": 0}


class AveragingConfig(TypedDict):
    """The keys of `averaging`."""

    kind: Annotated[str | None, Key()]
    decay: Annotated[float, Key()]
    start: Annotated[float, Key()]


class EarlyStoppingConfig(TypedDict):
    """The keys of `early_stopping`."""

    patience: Annotated[int | None, Key()]
    metric: Annotated[str, Key()]


class StopAtConfig(TypedDict):
    """The keys of `stop_at`."""

    metric: Annotated[str, Key()]
    value: Annotated[float | None, Key()]


class AugmentConfig(TypedDict):
    """The keys of `augment`."""

    crop: Annotated[int, Key()]
    flip: Annotated[bool, Key()]
    cutout: Annotated[int, Key()]


class TuningConfig(TypedDict):
    """The keys of `tuning`, which `tuning.study` checks."""

    trials: Annotated[int, Key()]
    method: Annotated[str, Key()]
    metric: Annotated[str, Key()]
    pick: Annotated[str, Key()]
    seed: Annotated[int, Key()]
    repeats: Annotated[int, Key()]
    seeds_per_trial: Annotated[int, Key()]
    pruning: Annotated[str | None, Key()]
    widenings: Annotated[int, Key()]


class FigureConfig(TypedDict):
    """The keys of `figure`, which the sweep's callback checks."""

    y: Annotated[str, Key()]
    x: Annotated[str, Key()]
    facet: Annotated[list[str] | None, Key()]
    lines: Annotated[str | None, Key()]
    log: Annotated[bool, Key()]
    style: Annotated[str, Key()]
    columns: Annotated[int | None, Key()]
    target: Annotated[float | str | None, Key()]


class RunConfig(TypedDict):
    """The configuration that `config.resolve` returns, and the table of its keys."""

    model: Annotated[Node, Key(PROBLEM | GROUP)]
    dataset: Annotated[Node, Key(PROBLEM | GROUP)]
    preprocessing: Annotated[str, Key(PROBLEM)]
    data: Annotated[DataConfig, Key(PROBLEM)]
    loss: Annotated[Node, Key(PROBLEM | GROUP)]
    initializer: Annotated[Node, Key(PROBLEM | GROUP)]
    batch_size: Annotated[int | Literal["full"], Key(PROBLEM)]
    epochs: Annotated[int | None, Key(PROBLEM, Count(1, "passes over the training set", null=True))]
    steps: Annotated[int | None, Key(PROBLEM, Count(1, "optimizer steps", null=True))]
    shuffle: Annotated[str, Key(PROBLEM, Choice(("every_epoch", "fixed_order")))]
    precision: Annotated[str, Key(PROBLEM, Choice(("float32", "bfloat16", "float16", "float64")))]
    drop_last: Annotated[bool, Key(PROBLEM, Switch(), before=False)]
    weight_penalty: Annotated[float, Key(PROBLEM, before=0.0)]
    augment: Annotated[AugmentConfig, Key(PROBLEM, before=NO_AUGMENTATION)]
    early_stopping: Annotated[EarlyStoppingConfig, Key(PROBLEM, before=NO_EARLY_STOPPING)]
    stop_at: Annotated[StopAtConfig, Key(PROBLEM, before=NO_TARGET)]
    budget_seconds: Annotated[float | None, Key(PROBLEM, before=None)]

    optimizer: Annotated[Node, Key(RUN | GROUP | SERIES)]
    schedule: Annotated[Node, Key(RUN | GROUP | SERIES)]
    decay_biases_and_norms: Annotated[bool, Key(RUN | SERIES, Switch())]
    decay_form: Annotated[str | None, Key(RUN | SERIES, before=None)]
    clip_norm: Annotated[float | None, Key(RUN | SERIES, before=None)]
    clip_value: Annotated[float | None, Key(RUN | SERIES, before=None)]
    accumulate: Annotated[int, Key(RUN | SERIES, before=1)]
    averaging: Annotated[AveragingConfig, Key(RUN | SERIES, before=NO_AVERAGING)]
    seed: Annotated[int, Key(RUN, Count(0, "a number that names the run"))]
    log: Annotated[LogConfig, Key(RUN)]
    deterministic: Annotated[bool, Key(RUN, Switch())]
    diagnostics: Annotated[str | None, Key(RUN, Choice((None, "layers", "sharpness")), before=None)]

    # the identity has the kind of device that the run used; these keys change at most the rounding
    device: Annotated[str, Key(COSMETIC)]
    num_threads: Annotated[int | None, Key(COSMETIC, Count(1, "CPU threads", null=True))]
    engine: Annotated[str, Key(COSMETIC, Choice(ENGINES))]
    compile: Annotated[bool, Key(COSMETIC, Switch())]
    checkpoint_seconds: Annotated[float | None, Key(COSMETIC)]

    tuning: Annotated[TuningConfig, Key(TUNING | NO_EFFECT | SWEEP)]
    seeds: Annotated[int, Key(TUNING | NO_EFFECT | SWEEP)]
    phase: Annotated[str | None, Key(STUDY | COSMETIC)]
    repeat: Annotated[int | None, Key(STUDY | COSMETIC)]

    results_dir: Annotated[str, Key(PATH | COSMETIC | SWEEP)]
    name: Annotated[str | None, Key(COSMETIC | SWEEP)]
    force: Annotated[bool, Key(COMMAND, Switch())]
    retry: Annotated[str, Key(COMMAND, Choice(("failed", "none")))]
    stop_at_failure: Annotated[bool, Key(COMMAND, Switch())]
    quiet: Annotated[bool, Key(COMMAND, Switch())]
    figure: Annotated[FigureConfig, Key(NO_EFFECT | SWEEP | ENDING)]
    claim: Annotated[Node | None, Key(SWEEP | ENDING)]
    reproduction: Annotated[Node | None, Key(SWEEP | ENDING)]
    candidate: Annotated[str | None, Key(COMMAND | ENDING)]
    baseline: Annotated[list[str] | str | None, Key(COMMAND | ENDING)]
    logger: NotRequired[Annotated[dict[str, Node], Key(COMMAND | UNRECORDED)]]


def _keys(of: type, prefix: str = "") -> Iterator[tuple[str, Key]]:
    # `NotRequired` stands within or around `Annotated`
    for name, hint in get_type_hints(of, include_extras=True).items():
        annotated = hint if hasattr(hint, "__metadata__") else hint.__args__[0]
        yield prefix + name, annotated.__metadata__[0]
        if is_typeddict(annotated.__origin__):
            yield from _keys(annotated.__origin__, f"{prefix}{name}.")


KEYS = dict(_keys(RunConfig))  # by dotted name
OVERLAYS = ("problem", "study")  # config groups that are no keys; each file sets several keys


@cache
def nested_keys(key: str) -> tuple[str, ...]:
    """Return the names of the keys inside a key; () for a key with a plain value."""
    return tuple(name.removeprefix(f"{key}.") for name in KEYS if name.startswith(f"{key}."))


def part_of(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return some keys of a configuration with their values."""
    return {name: config[name] for name in names}


@cache
def having(role: Role) -> tuple[str, ...]:
    """Return the dotted names of the keys with one of these roles, in order."""
    return tuple(name for name, key in KEYS.items() if key.role & role)


TOP_KEYS = tuple(name for name in KEYS if "." not in name)
GROUPS = having(GROUP)
PROBLEM_GROUPS = tuple(name for name in GROUPS if KEYS[name].role & PROBLEM)
SERIES_KEYS = having(SERIES)
KIND_KEYS = ("device", *(name for name in having(PROBLEM | RUN) if name != "seed"))
# settings of a dataset that say where its bytes are and how they are read, and change none
LOADING = ("in_memory_mb", "workers")
FIRST_SOURCES = ("root", "download")  # of the first version, for any dataset's settings
DATA_SOURCES = (*(name.removeprefix("data.") for name in having(SOURCE)), *LOADING)
PATHS = (*having(PATH), "dataset.root", "dataset.path")  # these repeat data.root, data.path
COSMETIC_KEYS = ("study", *having(COSMETIC))
NO_EFFECT_KEYS = having(NO_EFFECT)
# two values of such a key make the same run; not `device`, whose kind tells runs apart
ONE_VALUE_KEYS = tuple(
    name for name in TOP_KEYS if name != "device" and not KEYS[name].role & (PROBLEM | RUN)
)
TUNING_KEYS = having(TUNING)
UNREPEATED_KEYS = having(SWEEP | STUDY)  # left out of the command that repeats a run
UNRECORDED_KEYS = having(UNRECORDED | ENDING)
ENDING_KEYS = having(ENDING)
LABELS = ("name", "search")  # in a group, but no arguments: the label, and the search space
# keys of an optimizer, if their value is a mapping: its authors' schedule, and the lr of its tests
NOTES = ("schedule", "test")
GROUPS_KEY = "groups"  # of an optimizer; a mapping there holds rules, and is no argument


def settled(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group without its search space and notes, which are no settings."""
    return {
        key: value
        for key, value in node.items()
        if key != "search" and not (key in NOTES and isinstance(value, Mapping))
    }


def arguments_in(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a group's `_target_`, with Hydra's keys (`_args_`)."""
    return {
        key: value
        for key, value in settled(node).items()
        if key not in LABELS and not (key == GROUPS_KEY and isinstance(value, Mapping))
    }


def identity_part(config: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """Return the keys of a role that tell two runs apart, with their values.

    Left out are the sources of the data, and keys with the value `Key.before`.
    """
    part: dict[str, Any] = {}
    for key in having(role):
        value = config[key]
        if value == KEYS[key].before:
            continue
        if nested_keys(key):
            nested = {name: KEYS.get(f"{key}.{name}", Key()) for name in value}
            value = {
                name: item
                for name, item in value.items()
                if item != nested[name].before and not nested[name].role & SOURCE
            }
        part[key] = value
    return part
