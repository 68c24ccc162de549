"""Generate command lines, right and wrong in many ways, for `fuzz_configurations`."""

from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from optbench.formats.groups import config_folder

CONF = config_folder()
GROUPS = ("model", "dataset", "loss", "initializer", "optimizer", "schedule", "problem", "study")
BASES = (
    ["model.hidden=[8]"],
    ["model.hidden=[4]", "model.batch_norm=true", "model.dropout=0.2"],
    ["model=logreg", "diagnostics=layers"],
    ["model=cnn", "model.channels=[2]", "model.hidden=[4]"],
    ["model=logreg", "dataset=digits"],
    ["problem=quadratic_deep"],
)
RIGHT = {  # allowed values, beside those in the YAML files
    "batch_size": ["1", "7", "full", "64", "1000000"],
    "epochs": ["1", "3", "1000000000", "null"],
    "steps": ["1", "5", "null", "9007199254740992"],
    "seed": ["0", "1", "123456", "9007199254740992"],
    "shuffle": ["fixed_order", "every_epoch"],
    "precision": ["float32", "bfloat16"],
    "preprocessing": ["none", "scale", "standardize", "standardize_features"],
    "weight_penalty": ["0", "0.1", "1e10"],
    "drop_last": ["true", "false"],
    "data.val_size": ["0", "0.5", "3", "0.99"],
    "data.subset": ["2", "50", "null"],
    "data.split_seed": ["3", "9007199254740992"],
    "data.targets": ["inputs", "labels"],
    "optimizer.lr": ["0.1", "1e-30", "1e29", "1", "${optimizer.eps}", "1e-3"],
    "model.hidden": ["[]", "[1]", "[3,2,1]"],
    "model.activation": ["tanh", "relu", "gelu", "silu"],
    "diagnostics": ["layers", "null"],
    "checkpoint_seconds": ["null", "0", "1.5"],
    "decay_biases_and_norms": ["false", "true"],
    "log.eval_test": ["end", "never"],
    "log.steps": ["1", "100"],
    "device": ["cpu", "auto"],
    "num_threads": ["1", "2", "null"],
    "name": ["mine", "'a b'", "ä", "null"],
    "figure.y": ["val_loss"],
    "deterministic": ["true", "false"],
    "initializer.bias": ["0", "1", "null"],
}
WILD = (
    *["", "0", "-0", "-1", "1.5", "nan", "inf", "-inf", "1e400", "1e-400", "5e-324", "1e308"],
    *["9223372036854775807", "9223372036854775808", "-9223372036854775809", "9" * 400, "0x10"],
    *["1_000", "1e3", "0b1", "true", "True", "FALSE", "yes", "null", "none", "~", "???", "' '"],
    *["''", '""', "'", '"', "[]", "{}", "[[]]", "[1,[2,{a:3}]]", "{a:1}", "{a:{b:[1]}}", "[", "]"],
    *["{", "}", "[1,2", "1,2", "[1,2]", "[0]", "[-1]", "[1.5]", "[null]", "[true]", "[a]", "()"],
    *["${seed}", "${nosuch}", "${", "${}", "${seed", "${.lr}", "${..seed}", "${optimizer}"],
    *["${oc.env:HOME}", "${oc.env:NOSUCH}", "${oc.env:NOSUCH,1}", "${nosuch:1}", "${now:%Y}"],
    *["${hydra:job.num}", "${oc.decode:1}", "${oc.select:seed}", "${oc.dict.keys:data}"],
    *["${oc.create:{a:1}}", "x${seed}y", "${${name}}", "${oc.deprecated:seed}"],
    *["glob(*)", "range(1,3)", "choice(1,2)", "interval(0,1)", "sort(3,1)", "int(2.5)", "str(1)"],
    *["float(x)", "extend_list(1)", "cast(1)", "a=b", "=", "a:b", "../../x", "/etc/passwd", "."],
    *["..", "~/x", "a/b", "C:\\x", "<script>", "=cmd|' /C calc'!A0", "%s%n", "$(touch x)", "`id`"],
    *["!!python/object/apply:os.getcwd []", "&a", "*a", "!!int 3", "@", "#", "a #b", "\\", "\\'"],
    *["é", "日本", "٣", "½", "²", "😀", "\u202eabc", "\ufeff1", "\udcff", "a\tb", "a\nb", "\x7f"],
    *["x" * 5000, "[" * 300 + "]" * 300, "{a:" * 100 + "1" + "}" * 100],
)
# These classes are harmless when called. By design a `_target_` runs code.
TARGETS = (
    *["torch.optim.Adam", "torch.optim.SGD", "torch.optim.SparseAdam", "torch.optim.Optimizer"],
    *["torch.optim.LBFGS", "torch.optim.Nosuch", "torch.nosuch.Adam", "nosuch.Adam", "Adam"],
    *["torch", "torch.nn.Linear", "torch.nn.functional.relu", "math.sqrt", "math.pi", "dict"],
    *["builtins.dict", "collections.OrderedDict", "optbench.models.mlp", "optbench.models.nosuch"],
    *["optbench.losses.mse", "optbench.datasets.digits", "optbench.schedules.cosine", "a..b"],
    *["torch.nn.init.normal_", ".", "", "null", "1", "[]", "{}", "''", "a b", "torch.optim."],
)


def keys_of(path: Path, prefix: str) -> dict[str, Any]:
    """Return the keys of a YAML file, dotted, with their values."""
    found: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            found[prefix + key] = value
            walk(value, f"{prefix}{key}.")

    walk(yaml.safe_load(path.read_text("utf-8")), prefix)
    return found


TOP = {
    key: value
    for key, value in keys_of(CONF / "config.yaml", "").items()
    if key.split(".")[0] not in ("defaults", "hydra")
}
CHOICES = {
    group: sorted(str(p.relative_to(CONF / group).with_suffix("")) for p in files)
    for group in GROUPS
    if (files := list((CONF / group).rglob("*.yaml")))
}
INNER = {
    group: sorted({k for p in (CONF / group).rglob("*.yaml") for k in keys_of(p, f"{group}.")})
    for group in GROUPS[:6]
}
HYDRAS = ["hydra.job.chdir", "hydra.verbose", "hydra.run.dir", "hydra/launcher", "hydra/sweeper"]
KEYS = sorted({*TOP, *(key for keys in INNER.values() for key in keys), *HYDRAS})


def spelt(draw: st.DrawFn, text: str) -> str:
    """Return the text with a small mistake."""
    place = draw(st.integers(0, len(text)))
    how = draw(st.sampled_from(("drop", "double", "insert", "upper")))
    if how == "drop":
        return text[:place] + text[place + 1 :]
    if how == "double":
        return text[:place] + text[place - 1 : place] + text[place:]
    if how == "upper":
        return text[:place] + text[place:].upper()
    return text[:place] + draw(st.sampled_from(list(".=,'\"[]{}()$:~+ /\\@äx0-#%"))) + text[place:]


@st.composite
def value(draw: st.DrawFn, key: str) -> str:
    """Return a value for a key, right as often as wild."""
    if key.endswith("_target_"):
        return draw(st.sampled_from(TARGETS))
    own = [*RIGHT.get(key, ())]
    if key in TOP and not isinstance(TOP[key], dict):
        own.append(yaml.safe_dump(TOP[key]).splitlines()[0])
    kind = draw(st.integers(0, 13))
    if own and kind < 9:
        return draw(st.sampled_from(own))
    if kind == 9:
        return repr(draw(st.integers()))
    if kind == 10:
        return repr(draw(st.floats()))
    if kind == 11:
        return draw(st.text(max_size=20)).replace("\0", "")
    return draw(st.sampled_from(WILD))


@st.composite
def override(draw: st.DrawFn) -> str:
    """Return one word of a command line."""
    kind = draw(st.integers(0, 19))
    if kind == 0:
        return draw(st.text(max_size=30)).replace("\0", "")
    if kind < 5:  # a choice of a group
        group = draw(st.sampled_from(sorted(CHOICES)))
        other = draw(st.sampled_from(sorted(CHOICES))) if kind == 4 else group
        word = f"{group}={draw(st.sampled_from(CHOICES[other]))}"
    else:
        key = draw(st.sampled_from(sorted(RIGHT) if kind < 12 else KEYS))
        word = f"{key}={draw(value(key))}"
    prefix = draw(st.sampled_from([*[""] * 20, "+", "++", "~"]))
    word = prefix + (word.split("=")[0] if prefix == "~" and kind % 2 else word)
    return spelt(draw, word) if draw(st.integers(0, 14)) == 0 else word


@st.composite
def command_line(draw: st.DrawFn) -> list[str]:
    """Return a small problem, and one to three words that change it."""
    base = draw(st.sampled_from(BASES))
    words = draw(st.lists(override(), min_size=1, max_size=3))
    # Another model has no keys for the sizes of the base's model.
    if any(word.lstrip("+").startswith(("model=", "problem=")) for word in words):
        base = []
    return ["data.subset=64", *base, *words]
