"""The picture of a single run: its loss on training and validation data.

Only matplotlib is imported, since pandas and scipy import for longer than a short run trains.
"""

import math
from pathlib import Path

from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from optbench.common.errors import UserError
from optbench.figures import style
from optbench.figures.save import save
from optbench.formats.run import read_csv

LINES = (("train_loss", "training", "#000000", "-"), ("val_loss", "validation", "#D55E00", "--"))


def draw(run: Path) -> Path:
    """Write `curve.png` into a run's folder, and return its path.

    Raises `UserError` if the run logged no finite loss, or if the file cannot be written.
    """
    try:
        columns = read_csv(run / "epochs.csv")
    except (OSError, ValueError) as error:
        raise UserError(f"{run / 'epochs.csv'}: {error}") from error
    with style.use("notebook"), style.rc():
        figure = style.blank(4.4, 2.9)
        axes = figure.subplots()
        drawn: list[float] = []
        for name, label, color, dashes in LINES:
            pairs = zip(columns["epoch"], columns[name], strict=True)
            if shown := [(x, y) for x, y in pairs if math.isfinite(y)]:
                marker = "o" if len(shown) < 3 else ""
                axes.plot(*zip(*shown, strict=True), color=color, linestyle=dashes, label=label,
                          marker=marker)  # fmt: skip
                drawn += [float(y) for _, y in shown]
        if not drawn:
            raise UserError(f"{run}: no finite loss was logged, so there is no curve")
        if min(drawn) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(columns["epoch"][0], columns["epoch"][-1])
        axes.xaxis.set_major_locator(MaxNLocator(integer=columns["epoch"][-1] >= 1))
        axes.set_xlabel("passes over the training set (epochs)")
        axes.set_ylabel("loss")
        axes.legend(title=run.name)
        return save(figure, run, "curve", ("png",), title=f"Loss of {run.name}")[0]
