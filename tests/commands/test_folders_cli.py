"""Sub-commands on folders of something else, and on sweeps that are half done."""

from pathlib import Path

import pytest
from in_process import sub_command
from made_runs import make_run, sweep

from optbench.formats import job_list


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An ordinary sweep; one that was stopped after half of its runs, and one before any ended."""
    sweep(tmp_path / "plain", ("adam", "sgd"), 2)
    for name in ("half", "begun"):
        folder = tmp_path / name
        folder.mkdir()
        jobs = [
            [f"optimizer={optimizer}", f"seed={n}"] for optimizer in ("adam", "sgd") for n in (0, 1)
        ]
        job_list.plan(folder, 4, "failed", jobs)
        make_run(folder / "stopped", "sgd", 1, record={"status": "interrupted"})
    for number, optimizer in enumerate(("adam", "sgd")):
        make_run(tmp_path / "half" / optimizer, optimizer, 0)
        done = {"job": 2 * number, "overrides": jobs[2 * number], "status": "completed"}
        done["run"] = optimizer
        job_list.record(tmp_path / "half", done)
    (tmp_path / "results" / "first").mkdir(parents=True)
    monkeypatch.delenv("OPTBENCH_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verdict", "nowhere"], "there is no folder nowhere"),
        (["verdict"], "required: FOLDER\npython -m optbench verdict --help"),
        (["claims", "plain"], "(there is no claim.json)"),
        (["claims", "nowhere"], "there is no folder nowhere"),
        (["score", "plain"], "plain is a folder: give a CSV file of times"),
        (["score", "nowhere.csv"], "cannot read nowhere.csv"),
        (["report", "plain", "nowhere"], "there is no folder nowhere"),
        (["report", "first"], "there is no folder first. Did you mean results/first?"),
        (["plot", "plain", "optimizer=adam"], "optimizer=adam: an override is for training"),
        (["report", "epochs=3"], "--where KEY=VALUE picks among finished runs\n"),
        (["plot", "plian"], "there is no folder plian. Did you mean plain?"),
        (["plot", "plain", "--where", "optimizer=adam,sgd"], "write KEY=VALUE for each"),
        (["report", "plain", "title=x"], "Did you mean --title x?"),
        (["report", "plain", "--table", "accuracy"], "Did you mean val_accuracy?"),
        (["report", "begun"], "The command that began the runs resumes them"),
        (["plot", "begun"], "unfinished run (status interrupted)"),
    ],
    ids=" ".join,
)
def test_another_folder_is_refused_with_what_to_give(places, capsys, words, message):
    assert sub_command(words[0])(words[1:]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("optbench: ")
    assert message in err


@pytest.mark.parametrize("command", ["plot", "report"])
def test_a_stopped_sweep_is_shown_and_says_what_is_missing(places, capsys, command):
    assert sub_command(command)(["half"]) == 1  # a file was left out
    out, err = capsys.readouterr()
    assert "left out: half/stopped/run.json: unfinished run (status interrupted)" in err
    said = "2 of 4 planned runs of half are missing: the sweep's command runs them"
    page = Path("half/report.html")
    assert said in (err if command == "plot" else page.read_text())
    assert "half/" in out


@pytest.mark.parametrize("words", [["curves", "finals"], ["curves,finals"], ["curves finals"]])
def test_names_are_listed_with_blanks_or_commas(places, capsys, words):
    assert sub_command("plot")(["plain", "--kind", *words, "--format", "png,svg"]) == 0
    written = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    stems = ("train_loss-epoch", "final_train_loss")
    assert written == {f"{stem}.{end}" for stem in stems for end in ("png", "svg", "txt")}


def test_verdict_of_an_ordinary_sweep_is_that_of_its_end(places, capsys):
    assert sub_command("verdict")(["plain"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Verdict: ")
    assert told[0].endswith("by final training loss.")
