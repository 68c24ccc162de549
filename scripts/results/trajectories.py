"""Make results/trajectories: scenes of optimizers on functions of two variables.
A scene has a still, an animation and a table. The README judges expectations by the table."""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from PIL import Image, ImageSequence

from optbench.commands import trajectories
from optbench.trajectories import contours
from scripts import ROOT

OUT = ROOT / "results" / "trajectories"
PATHS = OUT / "paths"  # a table of the points of each scene
COLUMNS = [
    *["optimizer", "steps_to_minimum", "steps_settled", "distance", "overshoot"],
    *["last_to_first_step", "effective_step", "x", "y", "loss"],
]
Rows = dict[str, "pd.Series[float]"]  # rows of the table, by the optimizer's name and lr


class Scene(NamedTuple):
    """A command and its expected results: sentences, each with a test of the numbers."""

    words: str
    title: str
    expected: list[tuple[str, Callable[[Rows], bool]]]


def arrived(row: "pd.Series[float]") -> bool:
    """Return whether an optimizer came to a global minimum."""
    return not math.isinf(row["steps_to_minimum"])


SCENES = {
    "zigzag": Scene(
        "function=ravine optimizer=sgd,momentum optimizer.lr=0.48 momentum.momentum=0.5 steps=60",
        "A ravine, near the largest stable rate: the zigzag",
        [
            (
                "Gradient descent zigzags: its way is more than three times as long as momentum's.",
                lambda r: r["sgd"]["distance"] > 3 * r["momentum"]["distance"],
            ),
            (
                "Momentum is at the minimum in less than half of its steps.",
                lambda r: 2 * r["momentum"]["steps_to_minimum"] < r["sgd"]["steps_to_minimum"],
            ),
        ],
    ),
    "ravine": Scene(
        "function=ravine optimizer=sgd,momentum,nesterov optimizer.lr=0.1 steps=120",
        "A ravine, one learning rate: momentum",
        [
            (
                "Momentum is at the minimum before gradient descent is, and overshoots it; "
                "gradient descent does not overshoot.",
                lambda r: (
                    r["momentum"]["steps_to_minimum"] < r["sgd"]["steps_to_minimum"]
                    and r["momentum"]["overshoot"] > 0.05 > r["sgd"]["overshoot"]
                ),
            ),
            (
                "Nesterov's way is shorter than classical momentum's, and overshoots less.",
                lambda r: (
                    r["nesterov"]["distance"] < r["momentum"]["distance"]
                    and r["nesterov"]["overshoot"] < r["momentum"]["overshoot"]
                ),
            ),
        ],
    ),
    "fading": Scene(
        "function=quadratic optimizer=sgd,adagrad,rmsprop sgd.lr=0.05 adagrad.lr=0.5 "
        "rmsprop.lr=0.05 function.condition=10 noise=1 steps=400",
        "Noise that stays: the effective step",
        [
            (
                "For a gradient of one size AdaGrad's last step is less than a tenth of its first.",
                lambda r: r["adagrad"]["effective_step"] < 0.1,
            ),
            (
                "RMSProp's is not, and gradient descent's is as long as the first.",
                lambda r: (
                    r["rmsprop"]["effective_step"] >= 0.1
                    and abs(r["sgd"]["effective_step"] - 1) < 1e-6
                ),
            ),
        ],
    ),
    "saddle": Scene(
        "function=saddle optimizer=sgd,momentum,nesterov,rmsprop,adam optimizer.lr=0.05 steps=150",
        "A saddle, from 1e-6 beside its ridge, one learning rate",
        [
            (
                "Gradient descent is still at the saddle point at the end.",
                lambda r: math.hypot(r["sgd"]["x"], r["sgd"]["y"]) < 0.05,
            ),
            (
                "All others have left it, and came to a minimum.",
                lambda r: all(arrived(row) for name, row in r.items() if name != "sgd"),
            ),
        ],
    ),
    "saddle_rates": Scene(
        "function=saddle optimizer=sgd sgd.lr=0.05,0.1,0.5 steps=150",
        "The same saddle, larger learning rates",
        [
            (
                "That gradient descent stays is a matter of the budget: with 0.5 it leaves.",
                lambda r: arrived(r["sgd lr=0.5"]) and not arrived(r["sgd lr=0.05"]),
            )
        ],
    ),
    "saddle_noise": Scene(
        "function=saddle optimizer=sgd,momentum,adam optimizer.lr=0.05 start=1.5,0 noise=0.1 "
        "steps=150",
        "Exactly on the ridge, with noisy gradients",
        [
            (
                "Noise, as of mini-batches, leads all of them off the ridge, gradient descent too.",
                lambda r: all(arrived(row) for row in r.values()),
            )
        ],
    ),
    "himmelblau": Scene(
        "function=himmelblau optimizer=sgd,momentum,nesterov,adam sgd.lr=0.01 momentum.lr=0.01 "
        "nesterov.lr=0.01 adam.lr=0.1 steps=150",
        "Four equal minima",
        [
            ("All come to a minimum.", lambda r: all(arrived(row) for row in r.values())),
            (
                "Not all to the same one.",
                lambda r: len({(round(row["x"]), round(row["y"])) for row in r.values()}) > 1,
            ),
        ],
    ),
    "local_minimum": Scene(
        "function=styblinski_tang optimizer=sgd,momentum,nesterov optimizer.lr=0.02 start=4.4,4 "
        "steps=150",
        "A local minimum on the way to the global one, one learning rate",
        [
            (
                "Gradient descent stays in the local minimum that it comes to first.",
                lambda r: (
                    not arrived(r["sgd"])
                    and math.hypot(r["sgd"]["x"] - 2.7468, r["sgd"]["y"] - 2.7468) < 0.05
                ),
            ),
            (
                "Momentum, and Nesterov's, roll on through it to the global minimum.",
                lambda r: arrived(r["momentum"]) and arrived(r["nesterov"]),
            ),
        ],
    ),
    "rastrigin": Scene(
        "function=rastrigin optimizer=sgd,momentum,adagrad,adam optimizer.lr=best steps=150",
        "Many local minima, each optimizer at its best of 21 learning rates",
        [
            (
                "None finds the global minimum at 0, even at its best learning rate.",
                lambda r: not any(arrived(row) for row in r.values()),
            )
        ],
    ),
}


def main() -> None:
    """Run every scene and write the README."""
    PATHS.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, scene in SCENES.items():
        with tempfile.TemporaryDirectory() as folder:
            words = [*scene.words.split(), f"out={folder}", "format=png,gif"]
            asked = trajectories.parse(words)
            paths, table = trajectories.run(asked)
            contours.write_files(asked.out, asked.function, paths, table, asked.formats)
            for suffix in ("png", "gif", "csv"):
                content = (asked.out / f"trajectories.{suffix}").read_bytes()
                (OUT / f"{name}.{suffix}").write_bytes(content)
            (PATHS / f"{name}.csv").write_bytes((asked.out / "paths.csv").read_bytes())
            shrink(OUT / f"{name}.gif")
        parts.append(section(name, scene, table))
        print(parts[-1], flush=True)
    (OUT / "README.md").write_text(INTRODUCTION + "\n".join(parts) + END, "utf-8")


def shrink(file: Path) -> None:
    """Shrink a GIF to commit: two thirds of the width, every second frame.
    One palette for all frames without dithering stores only the pixels that moved."""
    with Image.open(file) as gif:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(gif)]
        pause = gif.info["duration"]
    width, height = frames[0].size
    size = round(width * 2 / 3), round(height * 2 / 3)
    small = [frame.resize(size, Image.Resampling.LANCZOS) for frame in frames]
    palette = small[-1].quantize(32)
    kept = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in small[::2]]
    kept[0].save(file, save_all=True, append_images=kept[1:], duration=2 * pause, loop=0)


def section(name: str, scene: Scene, table: pd.DataFrame) -> str:
    """Return a scene's figures, table, and the expected and found results."""
    lines = [f"## {scene.title}", "", f"    python -m optbench trajectories {scene.words}", ""]
    lines += [f"![{alternative(scene)}]({name}.png)", ""]
    lines += [f"The same as an animation: [{name}.gif]({name}.gif)", ""]
    lines += [*shown(table, COLUMNS), "", *judged(scene, table)]
    return "\n".join([*lines, ""])


def alternative(scene: Scene) -> str:
    """Return what a scene's picture shows, for those who do not see it."""
    words = dict(word.split("=", 1) for word in scene.words.split())
    names = words["optimizer"].replace(",", ", ")
    function = words["function"]
    return f"Paths of {names} over the contours of {function}, and their loss against the step"


def shown(table: pd.DataFrame, columns: list[str]) -> list[str]:
    """Return the lines of a table of what the optimizers did."""
    lines = [f"| {' | '.join(c.replace('_', ' ') for c in columns)} |"]
    lines += [f"| --- |{' ---: |' * (len(columns) - 1)}"]
    for _, row in table.iterrows():
        lines.append(f"| {' | '.join(cell(row[column]) for column in columns)} |")
    return lines


def judged(scene: Scene, table: pd.DataFrame) -> list[str]:
    """Return each expected result, and whether it is confirmed."""
    rows: Rows = {str(row["optimizer"]): row for _, row in table.iterrows()}
    for label in list(rows):
        rows.setdefault(label.split()[0], rows[label])
    if len(rows) == 2 * len(table):  # one setting of each, so the name alone is a key
        rows = {label.split()[0]: row for label, row in rows.items()}
    return [
        f"- {'Confirmed' if holds(rows) else 'Not confirmed'}: {sentence}"
        for sentence, holds in scene.expected
    ]


def cell(value: object) -> str:
    """Return a number with four digits, or "never" for a target not reached."""
    if isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    if math.isinf(number):
        return "never"
    return f"{number:.0f}" if number == round(number) and number > 2 else f"{number:.4g}"


INTRODUCTION = """\
# Optimizers on functions of two variables

What the textbooks draw, computed: `steps to minimum` is the first step within 0.05 of a global
minimum, `steps settled` the one after which it stays there, `distance` the length of the whole way,
`overshoot` how far it went beyond the minimum. `last to first step` is the quotient of the lengths
of these steps, `effective step` the same after each was divided by the length of its gradient.

"""
END = "\n`python -m scripts.results.trajectories` runs these commands and writes this file.\n"

if __name__ == "__main__":
    main()
