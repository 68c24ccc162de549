"""`optbench score times.csv`: AlgoPerf's profiles and scores of a table of times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from optbench.commands import Parser
from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.report.draw import SCORES_FILE
from optbench.stats import algoperf


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the profile and both scores of a CSV file."""
    parser = Parser(prog="optbench score", description=algoperf.__doc__)
    parser.add_argument("times", type=expanded, help=f"CSV: {algoperf.CSV_FORM}")
    asked = parser.parse_args(arguments)
    if Path(asked.times).is_dir():
        raise UserError(
            f"{asked.times} is a folder: give a CSV file of times. Of a sweep over several "
            f"problems, python -m optbench plot FOLDER writes the scores to {SCORES_FILE}"
        )
    times = algoperf.read_times(asked.times)
    shown = pd.DataFrame(
        {
            "score": algoperf.closed_form(times),
            "trapezoid": algoperf.trapezoid(times),
            **{f"rho({tau:g})": algoperf.profile(times, [tau])[tau] for tau in (1, 1.5, 2, 3, 4)},
            "reached": np.isfinite(times).sum(axis=1),
        }
    ).sort_values("score", ascending=False, kind="stable")
    print(shown.to_string(float_format=lambda value: f"{value:.4f}"))
    print(
        f"n = {times.shape[1]} workloads. score: the closed form; trapezoid: AlgoPerf's "
        f"{algoperf.PROFILE_POINTS} points on [1, {algoperf.R_MAX:g}]; rho(tau): "
        "share of workloads within tau times the fastest."
    )
