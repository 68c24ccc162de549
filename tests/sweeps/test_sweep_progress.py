"""What is seen of a sweep: counts, the time left, few lines in a log, none where quiet."""

import io
import json
import sys

import pytest
from rich.console import Console

from optbench.sweeps import progress
from optbench.sweeps.progress import Lines, Tally, board, duration


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def plan(folder, planned, *statuses):
    lines = [{"planned": planned, "jobs": None}]
    lines += [{"job": i, "overrides": [], "status": s} for i, s in enumerate(statuses)]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_tally_counts_runs_and_the_time_left(tmp_path, clock):
    plan(tmp_path, 10, "completed", "failed")  # of the batch before
    tally = Tally(tmp_path)
    assert tally.note() == "1 failed"
    tally.end("known", "completed")  # took no time
    tally.begin("a")
    tally.begin("b")
    clock[0] = 10.0
    tally.move("a", 50, 100)
    tally.end("b", "diverged")
    tally.begin("c")
    tally.end("c", "interrupted")  # it goes on in the next call
    assert (tally.over, tally.done) == (4, 4.5)
    # one and a half runs in ten seconds; five and a half are left
    assert tally.seconds_left() == pytest.approx(5.5 * 10 / 1.5)
    assert tally.note() == "1 running, 1 diverged, 1 failed, about 37 s left"


def test_nobody_guesses_too_early_or_without_an_end(tmp_path, clock):
    plan(tmp_path, None)
    tally = Tally(tmp_path)
    tally.begin("a")
    clock[0] = 100.0
    tally.move("a", 1, 2)
    assert tally.seconds_left() is None


def test_a_log_gets_few_lines(tmp_path, clock, capsys):
    plan(tmp_path, 1000)
    lines = Lines(Tally(tmp_path))
    for number in range(900):
        lines.begin(f"[{number}]")
        clock[0] += 0.1
        lines.move(f"[{number}]", 5, 10, 0.5)
        status = "diverged" if number == 7 else "completed"
        lines.end(f"[{number}]", status, "epoch 1  train_loss 0.1")
    told = capsys.readouterr().out.splitlines()
    assert "[7]  epoch 1  train_loss 0.1  diverged" in told
    assert len(told) < 100
    on_the_sweep = [line for line in told if "runs done" in line]
    assert len(on_the_sweep) in (2, 3)  # in ninety seconds
    assert "of 1000 runs done, " in on_the_sweep[-1]
    assert on_the_sweep[-1].endswith("left")
    assert "1 diverged" in on_the_sweep[-1]


def test_a_small_sweep_names_each_run(tmp_path, clock, capsys):
    plan(tmp_path, 3)
    with board(tmp_path, quiet=False) as shown:
        for label in ("[1/3] a", "[2/3] b", "[3/3] c"):
            shown.begin(label)
            shown.end(label, "completed", "epoch 2")
    assert capsys.readouterr().out.count("completed") == 3


def test_an_ending_is_told_once(tmp_path, clock, capsys):
    plan(tmp_path, 3)
    with board(tmp_path, quiet=False) as shown:
        shown.end("[1/3] a", "diverged", "epoch 0", "diverged at step 2")
        shown.end("[2/3] b", "diverged", "", "")  # the launcher said "already done (diverged)"
        shown.end("[3/3] c", "failed", "", "failed")
    # the end of the sweep counts the failed
    assert capsys.readouterr().out == "[1/3] a  epoch 0  diverged at step 2\n"


def test_quiet_is_silent(tmp_path, clock, capsys):
    plan(tmp_path, 3)
    with board(tmp_path, quiet=True) as shown:
        for status in ("completed", "diverged", "failed"):
            shown.begin(status)
            clock[0] += 100
            shown.move(status, 1, 2, 0.1)
            shown.end(status, status, "epoch 2")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_the_whole_and_the_first_runs(tmp_path, clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    plan(tmp_path, 100, "failed")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with board(tmp_path, quiet=False) as shown:
        for number in range(50):
            shown.begin(f"[{number}/100] <b>")
        clock[0] = 10.0
        shown.move("[3/100] <b>", 30, 60, 0.25)
        shown.end("[4/100] <b>", "completed", "")
        screen = Console(width=100, file=io.StringIO())
        screen.print(shown.progress.get_renderable())
    text = screen.file.getvalue().splitlines()
    assert "2/100" in text[0]
    assert "49 running, 1 failed, about" in text[0]
    assert len(text) == 1 + progress.MAX_BARS - 1
    assert any("30/60" in line and "loss 0.25" in line for line in text)


def test_durations_are_rounded_to_what_matters():
    assert [duration(s) for s in (0.2, 40, 700, 11100)] == ["1 s", "40 s", "12 min", "3 h 5 min"]
