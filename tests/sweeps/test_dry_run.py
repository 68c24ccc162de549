"""`--dry-run`: what a sweep or a study costs is told before it starts, and nothing is written."""

import re
from pathlib import Path

import pytest
from composed import configuration
from in_process import call

from optbench.config.command_line import dry_run
from optbench.runner import cost_estimate, planning
from optbench.runner.cost_estimate import Share, Speed

TINY = ["data.subset=100", "model.hidden=[8]", "device=cpu", "engine=plain", "num_threads=1"]


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.05)

    def start(*words: str) -> tuple[int, str, str]:
        return call(monkeypatch, *words), *capfd.readouterr()

    yield start
    assert dry_run.asked
    dry_run.asked = False


def test_a_sweep_tells_its_cost_and_writes_nothing(run, tmp_path):
    code, out, err = run("-m", "--dry-run", *TINY, "optimizer=sgd,adam", "seed=0,1,2", "epochs=2")
    assert code == 0, err
    assert "dry run: 6 runs, 12 epochs in all" in out
    assert re.search(r"sgd, mlp on mnist_5k: 3 runs of [\d.e-]+ s each", out)
    assert "core hours" in out
    assert not (tmp_path / "results").exists()


def test_a_tuned_study_tells_its_cost_and_writes_nothing(run, tmp_path):
    words = ["tuning.trials=3", "tuning.repeats=6", "seeds=2", "optimizer=sgd,adam", "epochs=2"]
    code, out, err = run("-m", "--dry-run", *TINY, "hydra/sweeper=tuned", *words)
    assert code == 0, err
    # for each optimizer 6 searches of 3 trials, and 2 seeds of the best and of the default setting
    assert f"dry run: {2 * 6 * (3 + 2 + 2)} runs, {2 * 2 * 6 * 7} epochs in all" in out
    assert "follow-up trials" in out
    assert not (tmp_path / "results").exists()


def test_finished_runs_are_not_counted_and_a_mistake_is_found(run, tmp_path):
    words = [*TINY, "optimizer=sgd", "epochs=1"]
    dry_run.asked = False
    assert run(*words)[0] == 0
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = run("-m", "--dry-run", *words, "seed=0,1", "name=x")
    assert code == 0
    assert "dry run: 1 run, 1 epoch in all; 1 is done already" in out
    assert sorted(tmp_path.rglob("*")) == before
    code, _, err = run("-m", "--dry-run", *words, "optimizer.lr=fast", "name=x")
    assert code == 1
    assert "lr" in err


def test_the_estimate_is_the_sum_of_its_parts():
    speed = Speed(start=1.0, step=0.01, evaluation=0.5, steps=100, evaluations=11, epochs=10)
    assert speed.seconds(1.0) == pytest.approx(1 + 1 + 5.5)
    assert speed.seconds(0.1) == pytest.approx(1 + 0.1 + 1.0)
    short = speed._replace(budget=0.25)  # a quarter of the training
    assert short.seconds(1.0) == pytest.approx(1 + 0.25 + 0.5 * 3.5)
    assert short.seconds(0.1) == speed.seconds(0.1)
    config = configuration("optimizer=adam", "device=cpu", "num_threads=1")
    lines = list(
        cost_estimate.lines_of([(Share(config, 3), speed), (Share(config, 2, 0.1), speed)], 7)
    )
    assert lines[0] == "dry run: 5 runs, 32 epochs in all; 7 are done already"
    hours = (3 * 7.5 + 2 * 2.1) / 3600
    assert lines[-2].startswith(f"about {hours:.3g} core hours")


def test_a_probe_is_near_to_the_time_of_the_whole_run(tmp_path):
    config = configuration(
        *TINY, "optimizer=adam", "epochs=300", "log.eval_epochs=100", f"results_dir={tmp_path}"
    )
    planned = planning.plan(config, Path(tmp_path))
    speed = cost_estimate.probe(planned)
    assert (speed.steps, speed.epochs) == (300, 300)
    assert speed.evaluations == 4
    assert 0 < speed.step < 1
    assert not any(tmp_path.iterdir())
