"""The statistics of results/published_claim, pinned on its committed table of mean scores."""

import pandas as pd
import pytest
from scipy import stats as reference

from optbench.stats.paired_tests import holm, signed_rank
from scripts.results import published_claim
from scripts.results.published_claim import OUT

SCORES = pd.read_csv(OUT / "scores.csv")
WIDE = SCORES.pivot_table(index="dataset", columns="optimizer", values="mean")


@pytest.fixture(scope="module")
def found() -> published_claim.Claims:
    return published_claim.claims()


def test_the_table_holds_means_and_no_scores_of_seeds() -> None:
    assert WIDE.shape == (17, 16)
    assert set(SCORES["n"]) == {10}
    assert list(SCORES) == ["dataset", "optimizer", "mean", "sd", "n", "metric"]
    assert {path.name for path in OUT.glob("*.csv")} == {"scores.csv", "pairs.csv"}


def test_muon_against_adamw_alone_holds_on_12_of_17_sets(found) -> None:
    assert (found.alone.ahead, found.alone.problems) == (12, 17)
    assert found.alone.raw_p == pytest.approx(0.0232, abs=5e-5)
    gaps = WIDE["muon"] - WIDE["adamw"]
    assert found.alone.raw_p == pytest.approx(reference.wilcoxon(gaps).pvalue)
    assert found.alone.outcome == "better"


def test_after_holms_correction_over_15_it_does_not(found) -> None:
    assert found.corrected.verdict.p == pytest.approx(0.26, abs=0.005)
    others = [name for name in WIDE if name != "adamw"]
    corrected = holm([signed_rank(WIDE["adamw"] - WIDE[name]) for name in others])
    assert found.corrected.verdict.p == pytest.approx(corrected[others.index("muon")])
    assert found.corrected.outcome == "cannot tell"
    assert found.passing == ["adamw-ema"]


def test_by_relative_differences_it_does_not_hold_alone(found) -> None:
    gaps = (WIDE["muon"] - WIDE["adamw"]) / WIDE["adamw"].abs()
    assert found.relative_p == pytest.approx(reference.wilcoxon(gaps).pvalue)
    assert found.relative_p == pytest.approx(0.071, abs=5e-4)


def test_ranks_friedman_and_critical_difference(found) -> None:
    expected = WIDE.rank(axis=1, ascending=False).mean()
    assert found.ranks.to_dict() == pytest.approx(expected.to_dict())
    assert list(found.ranks.index[:3]) == ["muon-ema", "adamw-ema", "muon"]
    assert found.test.p == pytest.approx(2e-6, rel=0.1)
    assert found.test.p == pytest.approx(reference.friedmanchisquare(*WIDE.to_numpy().T).pvalue)
    assert found.distance == pytest.approx(5.6, abs=0.01)
    assert found.ranks["adamw"] - found.ranks["muon"] < found.distance


def test_the_page_is_what_the_script_writes(found) -> None:
    pairs = pd.read_csv(OUT / "pairs.csv")
    page = published_claim.page(found, SCORES, pairs)
    command = f"`{published_claim.COMMAND}`"
    assert page == (OUT / "README.md").read_text("utf-8"), command
    assert pairs["outcome"].value_counts().to_dict() == {"better": 12, "cannot tell": 5}


def test_the_tables_are_made_of_the_scores_of_seeds(tmp_path) -> None:
    rows = [
        {"dataset": d, "optimizer": name, "seed": seed, "metric": "score",
         "test_score": 0.5 + 0.3 * (name == "muon") + 0.01 * seed}
        for d in ("a", "b") for name in ("muon", "adamw") for seed in range(6)
    ]  # fmt: skip
    raw = pd.DataFrame(rows)
    means = published_claim.mean_scores(raw)
    assert means["mean"].tolist() == pytest.approx([0.525, 0.825] * 2)
    raw.drop(columns="metric").to_csv(tmp_path / "raw.csv", index=False)
    pairs, text = published_claim.pairs_of(tmp_path / "raw.csv")
    assert pairs["outcome"].tolist() == ["better"] * 2
    assert text.startswith("muon is better than adamw on 2 of 2 problems")
