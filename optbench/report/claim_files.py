"""The files of a judged claim: sentence, statistics and figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from optbench.analysis.claims.checks import Check
from optbench.analysis.claims.judge import judge_claim, sentence, to_frame
from optbench.analysis.columns import filter_runs
from optbench.analysis.table import RunFiles
from optbench.common.csv_export import to_csv
from optbench.common.errors import UserError
from optbench.common.files import replace_text
from optbench.common.text import show
from optbench.figures.layers import FIGURES
from optbench.figures.save import save
from optbench.formats.job_list import CLAIM_FILE
from optbench.formats.run import read_sealed

WRITTEN = ("claim.md", "claim.csv")  # beside the figure


def judged(folder: Path, files: RunFiles) -> tuple[dict[str, Any], list[Check]]:
    """Return the claim that a sweep left in its folder, and the checks of the claim.

    Raises UserError if the folder has no claim, and as `judge_claim` does.
    """
    try:
        claimed = read_sealed(folder / CLAIM_FILE)
    except (OSError, ValueError) as error:
        why = f"there is no {CLAIM_FILE}" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(
            f"{folder} holds no claim that can be read ({why}): give the folder of a sweep whose "
            "study has a claim, such as study=claims/momentum"
        ) from None
    of_study = {key: value for key, value in claimed.items() if key != "changed"}
    return claimed, judge_claim(files.table(), layers_of(files), of_study)


def layers_of(files: RunFiles) -> pd.DataFrame | None:
    """Return the rows of `layers.csv`, or None if no run logged layers."""
    diagnostics = files.table().get("diagnostics", pd.Series(dtype=object)).astype(str)
    return files.table("layers") if (diagnostics == "layers").any() else None


def write(folder: str | Path, files: RunFiles | None = None) -> tuple[str, list[Path]]:
    """Judge the claim in a sweep's folder; write claim.md, claim.csv and the figure.

    files: the folder's files, if already read. Returns the sentence and the paths. Raises UserError
    as `judged` does.
    """
    folder = Path(folder)
    files = RunFiles([folder]) if files is None else files
    claimed, checks = judged(folder, files)
    text = sentence(claimed["text"], checks, claimed.get("changed", ()))
    text += "".join(f"\nLeft out: {each}.\n" for each in files.older)
    paths = [folder / name for name in WRITTEN]
    replace_text(paths[0], text)
    to_csv(to_frame(checks), paths[1])
    if isinstance(claimed.get("figure"), dict):
        paths += draw(folder, files.table(), layers_of(files), claimed["figure"])
    return text, paths


def draw(
    folder: Path, table: pd.DataFrame, layers: pd.DataFrame | None, options: Mapping[str, Any]
) -> list[Path]:
    """Write claim.png, .pdf and .txt by the function of `figures.layers` in the claim.

    The figure shows the runs that match `where: {key: value}` in `options`, or all runs.
    """
    rest = dict(options)
    name = rest.pop("draw", None)
    if name not in FIGURES:
        raise UserError(f"claim.figure.draw is {name!r}; allowed: {', '.join(FIGURES)}")
    if layers is None:
        raise UserError(f"the figure {name} needs layers.csv: diagnostics=layers writes it")
    layers = filter_runs(layers, [f"{key}={show(v)}" for key, v in rest.pop("where", {}).items()])
    if name == "gradient_by_error":  # epochs.csv holds the error
        rest["epochs"] = table
    try:
        figure = FIGURES[name](layers, **rest)
    except TypeError as error:
        raise UserError(f"claim.figure: {error}") from None
    return save(figure, folder, "claim", ("png", "pdf"))
