"""Runs that are trained together leave the folders that each leaves alone."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from optbench.config.resolve import config_folder
from optbench.engines.cohort.eligibility import group_key
from optbench.engines.cohort.stacked_models import Stack
from optbench.formats.run import read_record, read_rows
from optbench.runner import run
from optbench.runner.run_cohort import complete_together
from optbench.runs import folder as runs


def compose_plans(tmp_path, *optimizers, **more):
    """Plans of configurations as the command line makes them."""
    common = [
        "data.subset=120", "epochs=1", "model.hidden=[8]", "batch_size=32", "quiet=true",
        f"results_dir={tmp_path}", *(f"{key}={value}" for key, value in more.items()),
    ]  # fmt: skip
    plans = []
    for words in optimizers:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            config = compose("config", overrides=[*common, *words.split()])
        resolved = OmegaConf.to_container(config, resolve=True)
        plans.append(run.plan(resolved, tmp_path / "group"))
    return plans


def columns_of(folder, rows="steps"):
    columns = read_rows(folder / f"{rows}.csv", read_record(folder / "run.json"))
    return {name: column for name, column in columns.items() if "seconds" not in name}


def test_run_folders_are_those_of_runs_alone(tmp_path):
    words = "optimizer=adam", "optimizer=adam optimizer.lr=0.1 seed=1", "optimizer=sgd"
    plans = compose_plans(tmp_path / "a", *words)
    keys = {group_key(run.arguments(plan)) for plan in plans}
    assert len(keys - {None}) == 1
    shown = [[] for _ in plans]
    outcomes = complete_together(plans, [each.append for each in shown], lambda: False)
    assert [outcome.status for outcome in outcomes] == ["completed"] * 3
    assert {updates[-1].status for updates in shown} == {"completed"}
    for plan, outcome in zip(plans, outcomes, strict=True):
        alone = run.run(plan.config | {"results_dir": str(tmp_path / "b")}, tmp_path / "b")
        assert not alone.known
        assert alone.folder.name == outcome.folder.name
        assert sorted(f.name for f in alone.folder.iterdir()) == sorted(
            f.name for f in outcome.folder.iterdir()
        )
        for rows in ("steps", "epochs"):
            expected, found = columns_of(alone.folder, rows), columns_of(outcome.folder, rows)
            assert list(found) == list(expected)
            for name, column in found.items():
                assert column == pytest.approx(expected[name], rel=1e-4, nan_ok=True)
        record = read_record(outcome.folder / "run.json")
        assert record["cohort"] == 3
        assert record["run_id"] == read_record(alone.folder / "run.json")["run_id"]
        assert run.plan(plan.config, plan.group).done == outcome.folder


@pytest.mark.parametrize("after", [3, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("alone", [False, True])
def test_interrupted_runs_go_on_together_and_alone(tmp_path, alone, after):
    words = [
        "optimizer=momentum", "optimizer=textbook/momentum",
        "optimizer=nadam optimizer.weight_decay=0.1",
        *(f"optimizer=adam optimizer.eps=0.01 {more}" for more in (  # eps: steps that forgive noise
            "schedule=cosine", "optimizer.lr=0.01 seed=1", "optimizer.lr=0.003",
        )),
    ]  # fmt: skip
    common = " model.batch_norm=true model.dropout=0.2 log.steps=1 epochs=3"
    words = [text + common for text in words]
    shows = [lambda update: None] * len(words)
    whole = complete_together(compose_plans(tmp_path / "a", *words), shows, lambda: False)
    calls = iter(range(1, 10**6))
    plans = compose_plans(tmp_path / "b", *words)
    stopped = complete_together(plans, shows, lambda: next(calls) >= after)
    assert {outcome.status for outcome in stopped} == {"interrupted"}
    if alone:
        rest = [run.run(plan.config, plan.group) for plan in plans]
    else:
        rest = complete_together(compose_plans(tmp_path / "b", *words), shows, lambda: False)
    for expected, before, outcome in zip(whole, stopped, rest, strict=True):
        assert (outcome.status, outcome.folder) == ("completed", before.folder)
        assert not list(outcome.folder.glob("checkpoint*"))
        for rows in ("steps", "epochs"):
            columns = columns_of(expected.folder, rows)
            for name, column in columns_of(outcome.folder, rows).items():
                # of 120 examples one or two may be as likely of either class
                near = 0.017 if "accuracy" in name else None
                close = pytest.approx(columns[name], rel=1e-3, abs=near, nan_ok=True)
                assert column == close, name


def test_a_cohort_writes_checkpoints_as_it_goes(tmp_path, monkeypatch):
    common = "checkpoint_seconds=0 epochs=3"
    words = f"optimizer=adam {common}", f"optimizer=sgd {common}"
    finish = runs.RunFolder.finish
    left = []

    def killed(folder, status, error=None):
        left.append((folder.path / "checkpoint.pt").exists())
        finish(folder, status, error)

    monkeypatch.setattr(runs.RunFolder, "finish", killed)
    complete_together(compose_plans(tmp_path, *words), [lambda update: None] * 2, lambda: False)
    assert left == [True, True]


def test_a_folder_that_cannot_be_written_is_one_run_s_failure(tmp_path, monkeypatch):
    plans = compose_plans(tmp_path, "optimizer=adam", "optimizer=sgd", "optimizer=adagrad")
    write = runs.RunFolder.write

    def full(folder, update):
        if folder.record["name"] == "sgd" and update.step:
            raise OSError(28, "No space left on device")
        write(folder, update)

    monkeypatch.setattr(runs.RunFolder, "write", full)
    a, error, c = complete_together(plans, [lambda update: None] * 3, lambda: False)
    assert a.status == c.status == "completed"
    assert "No space left" in str(error)
    (folder,) = (tmp_path / "group").glob("sgd-*")
    assert read_record(folder / "run.json")["status"] == "failed"


@pytest.mark.parametrize("most", [3, 1, 0])
def test_more_than_the_memory_holds_are_trained_in_parts(tmp_path, monkeypatch, most):
    words = [f"optimizer=adam seed={seed}" for seed in range(5)]
    plans = compose_plans(tmp_path, *words)
    gradients, sizes = Stack.gradients, []

    def full(stack, x, *rest, **more):
        sizes.append(len(stack.parameters["1.weight"]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return gradients(stack, x, *rest, **more)

    monkeypatch.setattr(Stack, "gradients", full)
    outcomes = complete_together(plans, [lambda update: None] * 5, lambda: False)
    folders = sorted(path.name for path in (tmp_path / "group").iterdir())
    assert len(folders) == 5
    if not most:
        assert all("out of memory" in str(outcome) for outcome in outcomes)
        return
    assert [outcome.status for outcome in outcomes] == ["completed"] * 5
    assert sorted(outcome.folder.name for outcome in outcomes) == folders
    assert max(size for size in sizes if size <= most) == {3: 3, 1: 1}[most]
