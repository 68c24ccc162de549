"""A candidate's verdict from the command line: sweeps, `optbench verdict`, and the page."""

import json
import re
from pathlib import Path

import pytest
from in_process import call, sub_command
from made_runs import make_run, sweep

from optbench.analysis.comparison import Options
from optbench.formats.run import write_sealed
from optbench.report.collect import collect

verdict = sub_command("verdict")
SMALL = ("data.subset=300", "epochs=1", "model.hidden=[8]", "num_threads=1", "hydra/launcher=basic")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return sweep(tmp_path_factory.mktemp("runs"), ("adam", "sgd", "momentum"), 8)


def test_the_sentence_is_printed_and_the_file_written(folder, capsys) -> None:
    assert verdict([str(folder), "--candidate", "adam", "--baseline", "sgd", "momentum"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("adam is better than sgd: ")
    assert out[1] == str(folder / "verdict.json")
    assert json.loads((folder / "verdict.json").read_text())["sentence"] == out[0]


@pytest.mark.parametrize(
    ("candidate", "baseline", "code"),
    [("adam", "sgd", 0), ("sgd", "adam", 4), ("sgd", "adam,momentum", 4)],
)
def test_the_exit_code_is_the_outcome_where_it_is_asked_for(folder, candidate, baseline, code):
    words = [str(folder), "--candidate", candidate, "--baseline", baseline]
    assert verdict([*words, "--exit-code"]) == code
    assert verdict(words) == 0


def test_what_the_runs_cannot_tell_exits_with_3(tmp_path, capsys) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    assert verdict([str(tmp_path), "--candidate", "adam", "--exit-code"]) == 3
    assert "cannot be told" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--candidate", "adm"], "Did you mean adam?"),
        (["--candidate", "adam", "--baseline", "sdg"], "Did you mean sgd?"),
        (["--baseline", "sgd"], "--baseline needs the optimizer that is judged"),
        (["--exit-code"], "--exit-code is of a candidate's verdict"),
        (["--y", "tset_loss"], "Did you mean test_loss?"),
        (["--where", "seed=99"], "no run with seed = 99"),
        (["--candidate", "adam", "--y", "tset_loss"], "Did you mean test_loss?"),
    ],
)
def test_bad_words_are_refused_in_words(folder, capsys, words, said) -> None:
    assert verdict([str(folder), *words]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_what_is_missing_or_failed_is_said_beside_the_verdict(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "-m", "optimizer=sgd,adam,momentum", "adam.lr=0.01,1e40", "name=some"]
    assert call(monkeypatch, *words) == 1
    capsys.readouterr()
    folder = tmp_path / "some"
    jobs = (folder / "jobs.jsonl").read_text().splitlines(keepends=True)
    left = [line for line in jobs if '"optimizer=momentum"' not in line or "run" not in line]
    (folder / "jobs.jsonl").write_text("".join([jobs[0], *left[1:]]))
    for words, status in (([], 0), (["--candidate", "sgd"], 0), (["--candidate", "lion"], 1)):
        assert verdict([str(folder), *words]) == status
        err = capsys.readouterr().err
        assert "1 of 4 planned runs of" in err
        assert re.search(r"left out: .*optimizer=adam .*lr=1e\+40 failed", err)


def test_a_value_that_chose_settings_names_them(tmp_path, capsys) -> None:
    for name, rates in (("mine", (0.1,)), ("adam", (0.1, 0.01))):
        for lr in rates:
            for seed in range(8):
                make_run(tmp_path / f"{name}{lr}{seed}", name, seed, lr)
    assert verdict([str(tmp_path), "--candidate", "mine"]) == 0
    err = capsys.readouterr().err
    assert re.search(r"among the settings of an optimizer \(adam lr=0\.\d+\): name one", err)


def test_a_sweep_is_judged_by_another_column_and_of_some_runs(folder, capsys) -> None:
    before = sorted(folder.iterdir())
    assert verdict([str(folder), "--y", "test_loss"]) == 0
    assert capsys.readouterr().out.startswith("Verdict: adam is better than each of the 2 others")
    assert verdict([str(folder), "--where", "optimizer=sgd", "optimizer=momentum"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Of the runs with optimizer=sgd or momentum alone.\nVerdict: ")
    assert "adam" not in said
    assert sorted(folder.iterdir()) == before


def test_the_page_begins_with_the_candidate(folder) -> None:
    data = collect([folder], options=Options(candidate="adam", baseline=["sgd"], y="test_loss"))
    asked = data["verdict"]["candidate"]
    assert asked["outcome"] == "better"
    assert "final test loss" in asked["sentence"]
    assert collect([folder])["verdict"]["candidate"] is None


def test_report_writes_the_page_of_a_candidate(folder, tmp_path, capsys) -> None:
    report = sub_command("report")
    page = tmp_path / "page.html"
    assert report([str(folder), "-o", str(page), "--candidate", "adam"]) == 0
    assert "adam is better than momentum" in page.read_text("utf-8")
    assert report([str(folder), "-o", str(page), "--candidate", "adm"]) == 1
    assert "Did you mean adam?" in capsys.readouterr().err


@pytest.mark.slow  # test_tables_cli.py has a sweep with a candidate
def test_a_sweep_ends_with_the_verdict_that_it_was_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("-m", "optimizer=adam,sgd", "seed=0,1,2,3,4,5", *SMALL, "name=asked")
    assert call(monkeypatch, *words, "candidate=adam", "baseline=[sgd]") == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("Verdict: ")]
    told = json.loads((tmp_path / "results" / "asked" / "verdict.json").read_text())
    assert line == f"Verdict: {told['claim']}"
    assert (told["candidate"], told["baselines"]) == ("adam", ["sgd"])
    # the question is no part of a run: another one trains nothing again
    assert call(monkeypatch, *words, "candidate=sgd") == 0
    assert verdict(["results/asked", "--exit-code"]) == 4
    record = json.loads(next((tmp_path / "results" / "asked").glob("*/run.json")).read_text())
    assert "candidate" not in record["config"]


TWO = ("-m", "optimizer=adam,sgd")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "optimizer=adam,sgd", "candidate=adm"), "Did you mean adam?"),
        (("-m", "optimizer=adam,sgd", "candidate=adam", "baseline=[sdg]"), "Did you mean sgd?"),
        ((*TWO, "candidate=adam", "baseline=sgd,adam"), "'baseline=[sgd,adam]'"),
        (("-m", "optimizer=adam,sgd", "baseline=sgd"), "baseline needs the optimizer"),
        (("-m", "optimizer=adam,sgd", "candidate=adam", "baseline=[adam]"), "name two optimizers"),
        (("-m", "optimizer=adam", "seed=0,1", "candidate=adam"), "the sweep has adam alone"),
        (("-m", "optimizer=adam,sgd", "candidate=[adam]"), "the name of one optimizer"),
        (("optimizer=adam", "candidate=adam"), "candidate and baseline need -m"),
        ((*TWO, "hydra/sweeper=tuned", "candidate=lion"), "It has: adam, sgd"),
    ],
)  # fmt: skip
def test_a_question_without_sense_is_refused_before_training(
    tmp_path, monkeypatch, capsys, words, said
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *words, *SMALL) == 1
    err = capsys.readouterr().err
    assert said in err, err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.slow
def test_a_class_of_the_users_is_a_candidate_by_its_name(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("-m", "optimizer._target_=torch.optim.NAdam,torch.optim.SGD", "optimizer.lr=0.01")
    assert call(monkeypatch, *words, *SMALL, "candidate=NAdam", "baseline=[SGD]") == 0
    assert "Verdict: NAdam" in capsys.readouterr().out


def test_another_value_than_that_of_the_runs_is_asked_after_them(tmp_path, capsys) -> None:
    sweep(tmp_path, ("adam", "sgd"), 6)
    write_sealed(tmp_path / "figure.json", {"y": None, "x": None, "candidate": "adam"})
    assert verdict([str(tmp_path), "--y", "train_loss"]) == 0  # the value of the sweep itself
    assert (tmp_path / "verdict.json").exists()
    assert not (tmp_path / "verdict-asked.json").exists()
    assert verdict([str(tmp_path), "--y", "test_loss"]) == 0
    assert (tmp_path / "verdict-asked.json").exists()
    assert "by final training loss, before it ran" in capsys.readouterr().err
