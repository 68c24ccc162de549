"""A time to target inside a run whose schedule decays to its end is objected to."""

import json
from pathlib import Path

import pytest
from made_runs import sweep

from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import compare
from optbench.formats import job_list

WORDS = ["optimizer=adam,sgd", "schedule=cosine", "epochs=8", "seed=range(8)"]


def told_of_decay(folder: Path) -> list[str]:
    return [text for text in caveats(compare([folder])) if "decays to their end" in text]


@pytest.mark.parametrize("name", ["cosine", "trapezoid", "one_cycle"])
def test_times_inside_a_decaying_schedule_are_objected_to(tmp_path, name) -> None:
    sweep(tmp_path, ("adam", "sgd"), 8, schedule__name=name)
    (text,) = told_of_decay(tmp_path)
    assert f"schedule ({name})" in text


@pytest.mark.parametrize("name", ["constant", "warmup_constant"])
def test_schedules_without_an_end_are_not(tmp_path, name) -> None:
    sweep(tmp_path, ("adam", "sgd"), 8, schedule__name=name)
    assert not told_of_decay(tmp_path)


def test_the_sweep_offers_to_run_each_budget_to_its_own_end(tmp_path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 8, schedule__name="cosine", epochs=8)
    first = {"planned": 16, "retry": "failed", "jobs": [], "failed_before": [], "words": WORDS}
    ended = [
        {"job": number, "overrides": [], "status": "completed", "run": run.parent.name}
        for number, run in enumerate(tmp_path.glob("*/run.json"))
    ]
    lines = "".join(json.dumps(line) + "\n" for line in [first, *ended])
    (tmp_path / job_list.JOBS_FILE).write_text(lines)
    (text,) = told_of_decay(tmp_path)
    command = (
        "python -m optbench -m optimizer=adam,sgd schedule=cosine 'seed=range(8)' epochs=2,4,8"
    )
    assert text.endswith(command)


def test_a_command_with_more_seeds_keeps_those_that_were_run() -> None:
    first = {"words": ["optimizer=adam,sgd", "seed=3,11"]}
    assert job_list.with_more_seeds(first, [3, 11], 4).endswith("seed=3,11,0,1")
    assert job_list.with_more_seeds(first, [0, 1], 8).endswith("'seed=range(8)'")
    assert job_list.with_more_seeds({}, [0], 8) == ""
