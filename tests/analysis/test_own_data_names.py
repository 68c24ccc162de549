"""A user's own data go by the name of their file, so that two tables make two problems."""

from pathlib import Path

from made_runs import make_run

from optbench.analysis.comparison import Comparison
from optbench.analysis.table import load_runs


def own(folder: Path, path: str, digest: str, seed: int = 0, name: str = "csv") -> None:
    make_run(
        folder / f"{digest}{seed}{name}{path.replace('/', '-')}", seed=seed, data_digest=digest,
        data__path=path, dataset__name=name, dataset__path=path,
    )  # fmt: skip


def names(folder: Path) -> dict[str, str]:
    table = load_runs(folder)
    return {
        str(d): str(n) for d, n in zip(table["data_digest"], table["dataset.name"], strict=True)
    }


def test_tables_of_two_names_are_two_problems_with_these_names(tmp_path: Path) -> None:
    for seed in (0, 1):
        own(tmp_path, "/data/one.csv", "d1", seed)
        own(tmp_path, "two.csv", "d2", seed)
    assert names(tmp_path) == {"d1": "one.csv", "d2": "two.csv"}
    panels = Comparison(load_runs(tmp_path)).plan.runs["panel"].map(str).unique()
    assert len(panels) == 2


def test_files_of_one_name_have_their_folders_in_front(tmp_path: Path) -> None:
    own(tmp_path, "a/one.csv", "d1")
    own(tmp_path, "b/one.csv", "d2")
    assert names(tmp_path) == {"d1": "a/one.csv", "d2": "b/one.csv"}


def test_a_file_that_moved_keeps_its_name_and_a_given_name_stays(tmp_path: Path) -> None:
    own(tmp_path, "a/one.csv", "d1", 0)
    own(tmp_path, "b/renamed.csv", "d1", 1)
    own(tmp_path, "c/x.csv", "d3", 0, name="orders")
    assert names(tmp_path) == {"d1": "one.csv", "d3": "orders"}
