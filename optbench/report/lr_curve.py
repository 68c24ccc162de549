"""The picture of a learning-rate finder: the loss against a rising learning rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from optbench.figures import style
from optbench.figures.save import save


def draw(
    folder: Path, ramp: Mapping[str, Sequence[float]], marked: Mapping[str, float], title: str
) -> Path:
    """Write `lr_finder.png` into a folder, and return its path.

    ramp: lr, loss and smoothed of each step. marked: two learning rates by their names, which get a
    vertical line each.
    """
    lr, loss, smoothed = (list(map(float, ramp[name])) for name in ("lr", "loss", "smoothed"))
    with style.use("notebook"), style.rc():
        figure = style.blank(4.4, 2.9)
        axes = figure.subplots()
        axes.plot(lr, loss, color="#BBBBBB", linewidth=0.8, label="each batch")
        axes.plot(lr, smoothed, color="#000000", label="moving average")
        for (name, value), dashes in zip(marked.items(), ("--", ":"), strict=True):
            axes.axvline(value, color="#D55E00", linestyle=dashes, label=f"{name}: {value:.2g}")
        axes.set_xscale("log")
        if min(smoothed) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(min(smoothed) / 1.2 if min(smoothed) > 0 else None, max(smoothed) * 1.2)
        axes.set_xlim(lr[0], lr[-1])
        axes.set_xlabel("learning rate")
        axes.set_ylabel("mini-batch training loss")
        axes.legend(title=title)
        return save(
            figure, folder, "lr_finder", ("png",), title=f"Learning-rate finder of {title}"
        )[0]
