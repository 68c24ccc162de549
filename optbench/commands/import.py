"""`optbench import TABLE...`: runs that others trained, as a folder that optbench compares."""

import os
from collections.abc import Sequence
from pathlib import Path

from optbench.commands import Parser, listed
from optbench.common.files import expanded
from optbench.common.metrics import metric_of
from optbench.common.text import count
from optbench.formats.imported import figure_of, runs_of, write_runs
from optbench.formats.other_tables import parse_columns, read_tables

PAIRED = {
    True: "paired by seed, by your word (--paired)",
    False: "not paired, so each run has a seed of its own, and the tests are unpaired (--paired "
    "says that a seed means the same weights and batches)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `optbench import`; return 0."""
    parser = Parser(
        prog="optbench import",
        description="Bring runs that optbench did not train into a folder of runs, which plot, "
        "report and verdict read.",
    )
    parser.add_argument(
        "tables", nargs="+", type=expanded, metavar="TABLE",
        help="CSV or Parquet: one long table, or a file for each run",
    )  # fmt: skip
    parser.add_argument(
        "--columns", nargs="+", action="extend", default=[], metavar="OURS=THEIRS",
        help="what the table's columns are, as in optimizer=method,seed=rep,step=iter,"
        "val_loss=loss; optimizer.lr=rate is a setting. The first result is the one judged",
    )  # fmt: skip
    parser.add_argument(
        "--problem", nargs="+", metavar="COLUMN",
        help="the table's columns that tell problems apart (default: all runs are of one problem)",
    )  # fmt: skip
    parser.add_argument(
        "--paired", action="store_true",
        help="runs of one seed began with the same weights and saw the same batches",
    )  # fmt: skip
    parser.add_argument(
        "--pattern", metavar="NAME",
        help="columns in the files' names, as in '{optimizer}-seed{seed}.csv'",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=expanded, metavar="DIR",
        help="the folder to write (default: imported/TABLE in the folder of results)",
    )  # fmt: skip
    asked = parser.parse_args(argv)
    paths = [Path(path) for path in asked.tables]
    columns = parse_columns(asked.columns)
    problem = listed(asked.problem) or []
    table = read_tables(paths, asked.pattern)
    source = paths[0].name if len(paths) == 1 else f"{len(paths)} files as {paths[0].name}"
    found = runs_of(table, columns, problem, asked.paired, source)
    results = Path(os.environ.get("OPTBENCH_RESULTS", "results"))
    out = Path(asked.out) if asked.out else results / "imported" / paths[0].stem
    figure = figure_of(columns, found)
    write_runs(out, found, figure)
    problems = len({run.record["problem_hash"] for run in found})
    names = len({run.record["name"] for run in found})
    better = "small" if metric_of(figure["y"]).smaller else "large"
    print(
        f"{count(len(found), 'run')} of {count(names, 'optimizer')} on "
        f"{count(problems, 'problem')}: {out}",
        f"Judged by:  {metric_of(figure['y']).label} ({better} is good)",
        f"Pairs:      {PAIRED[asked.paired]}",
        "Problems:   the same where their names are, by your word: there is no hash of the data",
        f"Report:     python -m optbench report {out}",
        sep="\n",
    )
    return 0
