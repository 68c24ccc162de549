"""A tuned study of few searches is about the settings found, in every text of its folder."""

import json
from pathlib import Path

import pytest
from made_runs import make_run

from optbench.analysis.comparison import Comparison, Options, compare, settings_phrase
from optbench.figures.kinds import KINDS, draw
from optbench.report import finish, terminal, verdict_files
from optbench.report.collect import collect
from optbench.report.draw import write_table

NAMES = ("sgd", "momentum", "nesterov")
RATES = {"sgd": 0.001, "momentum": 0.003, "nesterov": 0.016}  # the last two are alike
SPACE = {
    "lr": {"low": 1e-4, "high": 1.0, "scale": "log"},
    "weight_decay": {"low": 1e-6, "high": 0.1, "scale": "log"},
}
TEXTS = (".txt", ".md", ".tex", ".json")
PHRASE = "these settings, of 2 searches each"


def study(folder: Path, searches: int) -> Path:
    """Four trials of each search over rate and decay, and four seeds of its setting."""
    for name in NAMES:
        for repeat in range(searches):
            for index, lr in enumerate((1e-4, 1e-3, 3e-3, 1e-1)):
                where = folder / "trials" / f"{name}{repeat}{index}"
                keys = {"optimizer__weight_decay": 10.0 ** -(index + 2)}
                make_run(where, name, 1000 * repeat, lr, phase="trials", repeat=repeat, **keys)
            for seed in range(1, 5):
                for phase, lr in (("tuned", RATES[name]), ("default", 1e-2)):
                    where = folder / phase / f"{name}{repeat}{seed}"
                    make_run(where, name, 1000 * repeat + seed, lr, phase=phase, repeat=repeat)
    entries = [
        {"optimizer": name, "repeat": repeat, "trials": [{}] * 4, "space": SPACE}
        for name in NAMES
        for repeat in range(searches)
    ]
    protocol = {"metric": "val_loss", "pick": "final"}
    manifest = {"tuning": protocol, "warnings": [], "contenders": entries}
    (folder / "study.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = study(tmp_path_factory.mktemp("few"), 2)
    finish(made, quiet=True)
    verdict_files.write_candidate(made, compare([made], Options(candidate="nesterov")))
    write_table([made], made / "table.tex", "test_loss", "mean_std", Options())
    return made


def test_every_caption_and_table_of_few_searches_is_about_these_settings(folder) -> None:
    texts = {
        path.name: path.read_text("utf-8") for path in folder.iterdir() if path.suffix in TEXTS
    }
    captions = {name for name in texts if name.endswith(".txt")}
    assert {"rate_decay.txt", "time_to_target.txt"} <= captions
    for name in captions:
        caption = texts[name].partition("Warning")[0]
        assert f"; {PHRASE}." in caption, name
    for name in ("summary.tex", "table.tex"):
        caption = texts[name].partition("\\caption{")[2].partition("\\label")[0]
        assert f"of 8 seeds ({PHRASE}); bold: better than every other of these settings" in caption
    note = texts["summary.md"].partition("Final values: ")[2].partition("Warning")[0]
    assert note.startswith(f"median [minimum, maximum] over n = 8 seeds ({PHRASE}).")
    assert "every other one" not in note
    assert f"A verdict on {PHRASE}, not on the optimizers" in texts["verdict.md"]
    assert f"Medians over seeds ({PHRASE})" in texts["verdict.md"]
    told = json.loads(texts["verdict.json"])
    assert (told["unit"], told["searches"]) == ("seed", 2)
    assert told["sentence"].startswith(f"T{PHRASE[1:]}: Cannot tell: nesterov ")


def test_a_leader_of_few_searches_is_warned_of_with_searches_not_seeds(folder) -> None:
    (line,) = [t for t in (folder / "summary.md").read_text().splitlines() if "is first by" in t]
    assert line.startswith(f"Warning: tuned: {PHRASE}: ")
    assert line.endswith(
        "cannot tell (n = 8 seeds; for the optimizers tuning.repeats=6 searches or more are needed)"
    )
    # a map of the trials is warned of as every other figure
    assert line in (folder / "rate_decay.txt").read_text().replace(").\n", ")\n")


def test_the_page_and_the_terminal_speak_of_the_settings_of_few_searches(folder) -> None:
    page = collect([folder])
    assert page["settings"] == f"T{PHRASE[1:]}"  # the notes that the page writes itself end so
    (card,) = page["verdict"]["cards"]
    for text in (card["headline"], card["margin"], page["pairs_lead"]):
        assert text.startswith(f"T{PHRASE[1:]}"), text
    assert f"over seeds ({PHRASE})" in page["reached"]["note"]
    assert f"over the seeds ({PHRASE})" in page["ranking"]["note"]
    for picture in (page["ranks"], page["reached_figure"]):
        assert PHRASE in picture["caption"]
    made = compare([folder])
    assert f"Verdict: T{PHRASE[1:]}: " in terminal.judged(made, "test_loss")


def test_each_figure_of_few_searches_says_so_in_its_small_print(folder) -> None:
    made = compare([folder])
    drawn, _ = draw(made, [], [])
    assert {"curves", "time_to_target", "budget", "rate_decay"} <= set(drawn)
    for name, figure in drawn.items():
        assert PHRASE in " ".join(figure.get_supxlabel().split()), KINDS[name].title


def test_enough_searches_are_about_the_optimizers(tmp_path) -> None:
    made: Comparison = compare([study(tmp_path, 6)])
    assert (made.searches, made.few_searches) == (6, "")
    assert settings_phrase(0) == settings_phrase(6) == ""
    assert settings_phrase(1) == "these settings, of 1 search each"
    page = collect([tmp_path])
    assert page["settings"] == ""
    assert "these settings" not in page["verdict"]["cards"][0]["headline"].lower()
