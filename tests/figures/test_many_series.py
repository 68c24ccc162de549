"""Every kind of figure with 1 to 30 series, and names of 40 letters: nothing overlaps, and nothing
leaves the picture."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import make_run
from matplotlib.figure import Figure
from matplotlib.text import Text

from optbench.analysis.comparison import Comparison, Options, compare
from optbench.analysis.table import RunFiles
from optbench.common.errors import UserError
from optbench.figures import style
from optbench.figures.kinds import KINDS
from optbench.figures.save import lay_out
from optbench.formats.run import COLUMNS

COST = {"cost": {"step_ms": 0.5, "state_bytes": 800, "parameters": 100}}
SERIES = (1, 7, *(pytest.param(many, marks=pytest.mark.slow) for many in (15, 30)))
DOTS = 2.0  # pixels by which boxes may meet: they hold the room of letters, not their ink
# of a picture: inches of a panel, at the size of print
NARROWEST, LOWEST = 0.8, 0.55
LEAST_SHARE = 0.15  # of the picture, for all panels; half of it in a column of a page


def name_of(index: int) -> str:
    """A name of 40 letters: with blanks, commas and equals signs, or without a place to wrap."""
    if index % 3:
        return f"my alpha, beta=0.9 and eps=1e-8 number {index:02d}"[:41]
    return f"optimizer_with_a_name_without_a_blank_{index:02d}"


def write_runs(folder: Path, names: list[str]) -> None:
    """A sweep over two problems and two learning rates with layers and costs, and in `tuned` a
    study with its trials."""
    cases = product(enumerate(names), (32, 128), ("he", "default"), (0.01, 0.1), (0, 1))
    for (at, name), size, initializer, lr, seed in cases:
        if initializer == "default" and (lr, seed) != (0.01, 0):
            continue
        keys = {"batch_size": size, "initializer__name": initializer}
        lost = 200 if seed and at % 4 == 1 else None
        run = make_run(
            folder / "sweep" / f"{at}-{size}-{initializer}-{lr}-{seed}", name, seed, lr,
            every=36, record=COST, diverged_at=lost, **keys,
        )  # fmt: skip
        rows = [
            {"epoch": step / 36, "step": step, "layer": depth, "kind": "linear", "depth": depth,
             "activation_std": depth + step, "output_grad_std": 1 / depth, "update_ratio": 1e-3}
            for step in (1, 36) for depth in (1, 2, 3)
        ]  # fmt: skip
        pd.DataFrame(rows, columns=COLUMNS["layers"]).to_csv(run / "layers.csv", index=False)
    for at, momentum in product(range(len(names)), (0.0, 0.9)):
        lr = 0.001 * 1.3**at
        run = folder / "rates" / f"{at}-{momentum}"
        make_run(run, names[0], 0, lr, every=36, optimizer__momentum=momentum)
    for (at, name), trial in product(enumerate(names), range(4)):
        phase = "trials" if trial < 3 else "tuned"
        lr = 0.001 * 10**trial
        run = folder / "tuned" / f"{at}-{trial}"
        decay = 1e-4 * 10**trial
        make_run(run, name, 0, lr, every=36, phase=phase, optimizer__weight_decay=decay)


def inputs(folder: Path) -> Iterator[tuple[str, Comparison]]:
    """What each kind of figure is drawn of, under the name of the kind and of the case."""
    files = RunFiles([folder / "sweep"])
    every = ["initializer=he"]
    panels, all_rates = [*every, "optimizer.lr=0.01"], [*every, "batch_size=32"]
    one = [*panels, "batch_size=32"]

    def of(where: list[str], **asked: object) -> Comparison:
        return compare([folder / "sweep"], Options(where=where, **asked), files)

    for kind in ("curves", "test", "finals", "time_to_target", "layers", "cost"):
        yield kind, of(one)
        yield f"{kind}, panels", of(panels)
    for kind in ("ranks", "profile"):
        yield kind, of(panels)
    yield "curves, settings", of(all_rates)
    yield "learning_rate", of(all_rates)
    yield "learning_rate, panels", of(every)
    yield "grid", of(["optimizer.lr=0.01"], facet=["batch_size", "initializer.name"])
    yield "curves, rates", compare([folder / "rates"], Options(where=["optimizer.momentum=0"]))
    yield "curves, two settings", compare([folder / "rates"])
    tuned = compare([folder / "tuned"])
    yield "budget", tuned
    yield "learning_rate, trials", tuned
    yield "rate_decay", tuned


def drawn_texts(figure: Figure) -> list[Text]:
    """The texts that are painted: matplotlib keeps labels of ticks outside the limits."""
    hidden: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            shown = axis._update_ticks()
            ticks = [*axis.majorTicks, *axis.minorTicks]
            unpainted = ticks if not axes.axison else [t for t in ticks if t not in shown]
            hidden |= {label for tick in unpainted for label in (tick.label1, tick.label2)}
            hidden |= set() if axes.axison else {axis.label, axis.offsetText}
    return [
        text for text in figure.findobj(Text)
        if text not in hidden and text.get_visible() and text.get_text().strip()
    ]  # fmt: skip


def meeting(boxes: np.ndarray) -> np.ndarray:
    """The pairs of boxes (x0, y0, x1, y1) that overlap."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    inside = np.minimum(high, boxes[None, :, 2:]) - np.maximum(low, boxes[None, :, :2])
    pairs = np.triu((inside > DOTS).all(axis=-1), 1)
    return np.argwhere(pairs)


def faults(figure: Figure) -> list[str]:
    """What overlaps, leaves the picture or is too small in a figure."""
    lay_out(figure)
    width, height = figure.bbox.size
    texts = drawn_texts(figure)
    boxes = np.array([text.get_window_extent().extents for text in texts])
    found = [
        f"outside: {text.get_text()!r} at {box.round()} of {width:.0f} x {height:.0f}"
        for text, box in zip(texts, boxes, strict=True)
        if min(box[0], box[1], width - box[2], height - box[3]) < -DOTS
    ]
    found += [f"{texts[a].get_text()!r} meets {texts[b].get_text()!r}" for a, b in meeting(boxes)]
    colors = "<colorbar>"  # matplotlib's label of a scale of colors, which is no panel
    panels = [axes.get_window_extent() for axes in figure.axes if axes.get_label() != colors]
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    for legend in filter(None, legends):
        box = legend.get_window_extent()
        if min(box.x0, box.y0, width - box.x1, height - box.y1) < -DOTS:
            found.append("the legend leaves the picture")
        both = np.array([box.extents, *(panel.extents for panel in panels)])
        found += ["the legend covers a panel" for pair in meeting(both) if pair[0] == 0]
        inside = set(legend.findobj(Text))
        others = [each for text, each in zip(texts, boxes, strict=True) if text not in inside]
        both = np.array([box.extents, *others])
        found += ["the legend covers a text" for pair in meeting(both) if pair[0] == 0]
    inch = figure.dpi * style.points(1)
    for panel in panels:
        if panel.width < NARROWEST * inch or panel.height < LOWEST * inch:
            found.append(f"a panel of {panel.width / inch:.2f} x {panel.height / inch:.2f} inches")
    share = sum(panel.width * panel.height for panel in panels) / (width * height)
    if share < LEAST_SHARE / (1 if style.columns() is None else 2):
        found.append(f"panels are {share:.0%} of the picture")
    return found


@pytest.fixture(scope="module", params=SERIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of so many optimizers."""
    path = tmp_path_factory.mktemp(f"of{request.param}")
    write_runs(path, [name_of(index) for index in range(request.param)])
    return path


@pytest.mark.parametrize(
    ("look", "columns"),
    [
        ("paper", None),
        pytest.param("paper", 1, marks=pytest.mark.slow),
        pytest.param("paper", 2, marks=pytest.mark.slow),
        pytest.param("talk", None, marks=pytest.mark.slow),
    ],
)
def test_nothing_overlaps_or_leaves_a_figure(
    folder: Path, look: str, columns: int | None, request: pytest.FixtureRequest
) -> None:
    count = request.node.callspec.params["folder"]
    drawn, found = set(), {}
    with style.use(look, columns):
        for case, made in inputs(folder):
            kind = case.split(",")[0]
            try:
                figure = KINDS[kind].draw(made)
            except UserError as error:
                found[case] = [str(error)]
                continue
            drawn.add(kind)
            if wrong := faults(figure):
                found[case] = wrong
    alone = {"ranks", "profile", "time_to_target"} if count == 1 else set()
    assert {case.split(",")[0] for case in found} <= alone, found
    assert drawn == set(KINDS) - alone
