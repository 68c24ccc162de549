"""A partial call of packaged code is made once in a process, and is still each caller's own."""

import sys
from pathlib import Path

import pytest

from optbench.config import trust
from optbench.config.build import build

MLP = {"_target_": "optbench.models.mlp", "_partial_": True, "hidden": [8, 4]}


def test_a_second_call_is_equal_and_shares_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_made", {})
    first = build("model", MLP)
    monkeypatch.setattr(trust, "call", None)  # the second is not made by Hydra
    second = build("model", dict(MLP))
    assert (first.func, first.keywords) == (second.func, second.keywords)
    first.keywords["hidden"].append(2)
    assert second.keywords == build("model", MLP).keywords == {"hidden": [8, 4]}


@pytest.mark.parametrize("other", [{"hidden": [8, 5]}, {"hidden": [8, 4], "batch_norm": True}])
def test_other_arguments_make_another_call(other: dict[str, object]) -> None:
    assert build("model", MLP | other).keywords == other


def test_code_of_the_users_own_is_made_each_time(tmp_path: Path, monkeypatch) -> None:
    """A notebook may load the module again between two runs."""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for number in (1, 2):
        (tmp_path / "made_once_own.py").write_text(f"def net(x, y):\n    return {number}\n")
        sys.modules.pop("made_once_own", None)
        sys.path_importer_cache.clear()
        for file in tmp_path.glob("__pycache__/*"):
            file.unlink()
        found.append(build("model", {"_target_": "made_once_own.net", "_partial_": True})(0, 0))
    assert found == [1, 2]
