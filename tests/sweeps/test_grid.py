"""The jobs of a sweep: an optimizer's own settings meet that optimizer alone."""

import json
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from in_process import call

from optbench.common.errors import UserError
from optbench.config.hydra_internals import VERSION_BASE
from optbench.config.own_settings import for_hydra
from optbench.formats.groups import config_folder
from optbench.sweeps.grid import expand, parse

QUICK = ["data.subset=100", "model.hidden=[8]", "steps=2", "epochs=null", "num_threads=1"]


def jobs(*words: str) -> list[str]:
    with initialize_config_dir(str(config_folder()), **VERSION_BASE):
        return [" ".join(job) for job in expand(parse(for_hydra(words)), "adam")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "optimizer=sgd,adam adam.lr=0.01 sgd.lr=0.1,0.03",
            [
                "optimizer=sgd optimizer.lr=0.1",
                "optimizer=sgd optimizer.lr=0.03",
                "optimizer=adam optimizer.lr=0.01",
            ],
        ),
        (
            "optimizer=sgd,adam adam.lr=0.1 seed=0,1",
            [
                "optimizer=sgd seed=0",
                "optimizer=sgd seed=1",
                "optimizer=adam seed=0 optimizer.lr=0.1",
                "optimizer=adam seed=1 optimizer.lr=0.1",
            ],
        ),
        (  # what is set for all gives way, and makes no job twice
            "optimizer=sgd,adam optimizer.lr=0.1,0.2 adam.lr=0.3",
            [
                "optimizer=sgd optimizer.lr=0.1",
                "optimizer=sgd optimizer.lr=0.2",
                "optimizer=adam optimizer.lr=0.3",
            ],
        ),
        ("adam.lr=0.1 seed=3", ["seed=3 optimizer.lr=0.1"]),  # the default optimizer
        (
            "optimizer=textbook/adam,adam textbook/adam.lr=0.1",
            ["optimizer=textbook/adam optimizer.lr=0.1", "optimizer=adam"],
        ),
        (
            "optimizer=mine,adam mine.lr=1 +adam.foreach=true",
            ["optimizer=mine optimizer.lr=1", "optimizer=adam ++optimizer.foreach=True"],
        ),
        (
            "optimizer=sgd sgd.lr=0.1 sgd.lr=0.2,0.3",  # given twice: the last
            ["optimizer=sgd optimizer.lr=0.2", "optimizer=sgd optimizer.lr=0.3"],
        ),
    ],
)
def test_own_settings_meet_their_optimizer_alone(words, expected):
    assert jobs(*words.split()) == expected


def test_an_optimizer_that_is_not_in_the_sweep_is_refused():
    with pytest.raises(UserError, match=r"adam.lr .* are run are sgd, momentum: name adam in"):
        jobs("optimizer=sgd,momentum", "adam.lr=0.1")


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """`python -m optbench` in this process: exit status, standard output and error."""
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        return call(monkeypatch, *QUICK, *words), *capsys.readouterr()

    return run


def rates(folder: Path) -> list[tuple[str, float]]:
    records = [json.loads(path.read_text()) for path in folder.rglob("run.json")]
    return sorted((each["name"], each["config"]["optimizer"]["lr"]) for each in records)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lr=0.1,0.2"], "unknown key 'lr'. Did you mean optimizer.lr"),
        (["optimizer.lrr=0.1,0.2"], "unknown key 'optimizer.lrr'. Did you mean optimizer.lr"),
        (["adam.lrr=0.1,0.2"], "unknown key 'adam.lrr'. Did you mean adam.lr"),
        (["textbook.adam.lrr=0.1"], "Did you mean textbook.adam.lr=0.1?"),
        (["adma.lr=0.1,0.2"], "unknown key 'adma.lr'. Did you mean adam.lr"),
    ],
)
def test_misspelt_key_ends_sweep_before_its_folder(here, tmp_path, words, expected):
    status, out, err = here("-m", "optimizer=sgd,adam,textbook/adam", *words)
    assert (status, out, list(tmp_path.iterdir())) == (1, "", [])
    assert expected in err


def test_sweep_takes_keys_that_only_some_choices_have(here, tmp_path):
    words = ["-m", "optimizer=nesterov,sgd", "nesterov.momentum=0.8,0.9", "--dry-run"]
    status, out, _ = here(*words)
    assert (status, out.partition("\n")[0]) == (0, "dry run: 3 runs, 6 epochs in all")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_runs_them_with_both_launchers(here, tmp_path):
    words = ["-m", "optimizer=sgd,adam", "adam.lr=0.01", "sgd.lr=0.1,0.03"]
    for launcher in ("workers", "basic"):
        assert here(*words, f"hydra/launcher={launcher}", f"name={launcher}")[0] == 0
        assert rates(tmp_path / launcher) == [("adam", 0.01), ("sgd", 0.03), ("sgd", 0.1)]
    status, _, err = here("-m", "optimizer=sgd,momentum", "adam.lr=0.1")
    assert status == 1
    assert "name adam in optimizer=" in err


def test_a_single_run_takes_the_settings_of_its_optimizer(here, tmp_path):
    assert here("optimizer=sgd", "sgd.lr=0.3")[0] == 0
    assert here("optimizer=sgd", "optimizer.lr=0.3")[1].count("already done") == 1
    assert rates(tmp_path) == [("sgd", 0.3)]
    for words, expected in (
        (["adam.lr=0.1", "optimizer=sgd"], "the optimizers that are run are sgd"),
        (["adam.learning_rate=0.1"], "unknown key 'adam.learning_rate'. Did you mean adam.lr=0.1?"),
        (["adma.lr=0.1"], "unknown key 'adma.lr'. Did you mean adam.lr=0.1?"),
        (["adam.lr=0.1,0.2"], "adam.lr=0.1,0.2 names several values: -m sweeps"),
    ):
        status, _, err = here(*words)
        assert status == 1
        assert expected in err


def test_a_tuned_study_fixes_them(here, tmp_path):
    words = ["hydra/sweeper=tuned", "optimizer=sgd,adam", "adam.lr=0.01", "tuning.trials=2"]
    words += ["tuning.repeats=1", "tuning.widenings=0"]
    assert here(*words, "seeds=1", "name=t")[0] == 0
    found = rates(tmp_path / "t" / "trials")
    assert {lr for name, lr in found if name == "adam"} == {0.01}
    assert len({lr for name, lr in found if name == "sgd"}) == 2


@pytest.mark.parametrize(
    "words",
    [["optimizer=sgd,adam", "batch_size=0"], ["hydra/sweeper=tuned", "optimizer=sgd,adam"]],
)
def test_a_mistake_of_all_jobs_is_refused_before_the_sweep_has_a_folder(
    tmp_path: Path, monkeypatch, capsys, words: list[str]
) -> None:
    wrong = [f"results_dir={tmp_path / 'results'}", "epochs=0"]
    assert call(monkeypatch, "-m", *words, *wrong) == 1
    out, err = capsys.readouterr()
    assert "must be a whole number of at least 1" in err
    assert not out
    assert not (tmp_path / "results").exists()


def test_variables_that_a_file_sets_for_its_jobs_are_no_mistake(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    study = tmp_path / "conf" / "study" / "env.yaml"
    study.parent.mkdir(parents=True)
    study.write_text(
        "# @package _global_\ndata:\n  root: ${oc.env:MY_OWN_DATA}\nhydra:\n  job:\n    env_set:\n"
        f"      MY_OWN_DATA: {tmp_path}\n"
    )
    words = [f"results_dir={tmp_path / 'results'}", "hydra/launcher=basic", "optimizer=sgd,adam"]
    given = ["--config-dir", str(tmp_path / "conf"), "-m", *QUICK, *words, "study=env"]
    assert call(monkeypatch, *given) == 0
    assert len(list((tmp_path / "results").rglob("run.json"))) == 2
    assert capsys.readouterr().err == ""


def test_a_mistake_of_one_job_fails_that_job_alone(tmp_path: Path, monkeypatch, capsys) -> None:
    words = [f"results_dir={tmp_path}", "hydra/launcher=basic", "batch_size=0,64"]
    assert call(monkeypatch, "-m", *QUICK, *words) == 1
    assert "1 of 2 runs failed" in capsys.readouterr().err
