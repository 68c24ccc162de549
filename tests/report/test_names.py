"""Optimizers may be called anything: blanks, equals signs and commas in their names."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process import sub_command
from made_runs import make_run
from matplotlib.colors import to_hex
from matplotlib.legend import Legend

from optbench.analysis.comparison import Options, compare
from optbench.analysis.leader import ranked
from optbench.analysis.pairing import by_seed, owners_of
from optbench.analysis.summary import summary
from optbench.analysis.time_to_target import time_to_target
from optbench.analysis.verdict import verdicts
from optbench.figures import kinds, style
from optbench.figures.kinds import KINDS
from optbench.report import verdict_files
from optbench.report.collect import collect
from optbench.report.draw import draw_all

main = sub_command("plot")

PLAIN = ("adam", "sgd", "momentum")
# among them one that is called as another one with its setting is
ODD = ("my adam", "adam lr=0.01", "a, b=c")


def folders(tmp_path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The same runs with ordinary names and with odd ones, whose order is the same."""
    for place, names in (("plain", PLAIN), ("odd", ODD)):
        yield tmp_path / place, names


def sweep(folder: Path, names: tuple[str, ...], seeds: int = 7, models: tuple = ("mlp", "cnn")):
    cost = {"step_ms": 0.5, "state_bytes": 800, "parameters": 100}
    for index, name in enumerate(names):
        for model in models:
            for seed in range(seeds):
                where = folder / f"{index}{model}{seed}"
                lr = (3e-3, 3e-4, 1e-4)[index]
                make_run(where, name, seed, lr=lr, model__name=model, record={"cost": cost})
    return folder


def study(folder: Path, names: tuple[str, ...]) -> Path:
    for index, name in enumerate(names):
        for number, lr in enumerate((1e-4, 1e-3, 3e-3)):
            where = folder / "trials" / f"{index}{number}"
            make_run(where, name, lr=lr / (1 + index), phase="trials")
        for seed in range(1, 9):
            for phase in ("tuned", "default"):
                lr = (3e-3 if phase == "tuned" else 1e-3) / (1 + index)
                make_run(folder / phase / f"{index}{seed}", name, seed, lr=lr, phase=phase)
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "warnings": []}
    (folder / "study.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.slow
def test_every_kind_of_figure_is_drawn(tmp_path):
    drawn = {}
    for place, names in folders(tmp_path):
        made = compare([sweep(place / "sweep", names)], Options())
        figures, skipped = kinds.draw(made, [kinds.ALL], [])
        tuned, missing = kinds.draw(compare([study(place / "study", names)]), [kinds.ALL], [])
        drawn[place.name] = (set(figures), set(tuned))
        text = "\n".join([*skipped, *missing])
        assert drawn["plain"] == drawn[place.name], text
        assert {"ranks", "profile", "time_to_target", "cost"} <= set(figures)
        assert {"learning_rate", "budget", "finals"} <= set(tuned)
    assert set(KINDS) - set.union(*drawn["odd"]) == {"grid", "layers", "rate_decay"}


def test_each_optimizer_has_a_look_of_its_own(tmp_path):
    made = compare([sweep(tmp_path, ODD)])
    looks = style.looks(ODD)
    assert len(set(looks.values())) == len(ODD)
    figures, _ = kinds.draw(made, ["curves", "profile", "time_to_target", "ranks", "cost"], [])
    expected = {to_hex(look.color) for look in looks.values()}
    for name, figure in figures.items():
        lines = [line for axes in figure.axes for line in axes.lines]
        assert expected <= {to_hex(line.get_color()) for line in lines}, name


def test_settings_belong_to_their_optimizer(tmp_path):
    for index, name in enumerate(("adam", "my adam", "adam lr=0.01")):
        for lr in (0.001, 0.01) if name != "adam lr=0.01" else (0.01,):
            for seed in range(6):
                make_run(tmp_path / f"{index}{lr}{seed}", name, seed, lr=lr)
    made = compare([tmp_path])
    frame = by_seed(made, "train_loss")
    owners = owners_of(frame)
    assert set(owners) == set(map(str, frame))
    assert sorted(owners.values()) == ["adam", "adam", "adam lr=0.01", "my adam", "my adam"]
    assert owners["adam lr=0.01"] == "adam"
    assert owners["'adam lr=0.01'"] == "adam lr=0.01"
    assert (frame.notna().sum() == 6).all()
    table = summary(made)
    assert table["variant"].is_unique
    assert sorted(table["variant"].tolist()) == sorted(map(str, frame))
    assert table["variant"].tolist() == ranked(frame)
    figure = KINDS["learning_rate"].draw(made)
    names = figure.findobj(Legend)[0].get_texts()
    assert len(names) == 3  # one of them is a point, at its only rate
    found = time_to_target(made, "val_loss", "baseline:my adam")
    own = by_seed(made, "val_loss")
    mine = own[[name for name in own if owners[name] == "my adam"]]
    assert found.frame["target"].iloc[0] == mine.quantile(0.5, interpolation="higher").min()
    card = collect([tmp_path])["verdict"]["cards"][0]
    assert len(card["against"]) == 2
    toggles = {entry["name"]: entry["toggle"] for entry in collect([tmp_path])["names"]}
    assert toggles == owners


def test_reports_and_verdicts_are_those_of_ordinary_names(tmp_path):
    pages, texts = [], []
    for place, names in folders(tmp_path):
        folder = study(place, names)
        told = verdicts(compare([folder]))
        assert told["b"].tolist() == [names[0]] * 2
        assert set(told["a"]) == set(names[1:])
        text = verdict_files.write(folder)[0]
        texts.append([line for line in text.splitlines() if any(f"| {n} |" in line for n in names)])
        pages.append(collect([folder]))
    assert len(texts[0]) == len(texts[1]) == 2 + 3 + 6
    for key, value in pages[0].items():
        assert (value is None) == (pages[1][key] is None), key
    for page, names in zip(pages, (PLAIN, ODD), strict=True):
        (card,) = page["verdict"]["cards"]
        assert card["leader"] == names[0]
        assert card["toggle"] == names[0]
        assert card["correction"] == "max-type"
        assert {entry["toggle"] for entry in page["names"]} == set(names)
        for section in (page["ranking"], page["reached"]):
            assert {row["toggle"] for row in section["rows"]} == set(names)
        for panel in [*page["rates"], *page["budget"]]:
            assert {line["toggle"] for line in panel["lines"]} == set(names)
        assert set(page["matrices"][0]["toggles"]) == set(names)


@pytest.mark.parametrize("kind", ["ranks", "profile", "time_to_target"])
def test_the_command_draws_them(tmp_path, kind, capsys):
    folder = sweep(tmp_path / "runs", ODD)
    assert main([str(folder), "--kind", kind, "-o", str(tmp_path / "out"), "--format", "png"]) == 0
    assert capsys.readouterr().err.count("does not apply") == 0


def test_tables_name_them(tmp_path):
    result = draw_all([sweep(tmp_path / "r", ODD)], tmp_path / "o", Options(formats=["png"]))
    names = {path.name for path in result.paths}
    assert {"benchmark_score.csv", "time_to_target.csv", "critical_difference.png"} <= names
    for name in ("summary.md", "summary.tex", "time_to_target.csv", "benchmark_score.csv"):
        text = (tmp_path / "o" / name).read_text()
        assert all(odd in text for odd in ODD), name


def test_each_problem_has_the_test_that_its_own_seeds_allow(tmp_path):
    for name in ("adam", "sgd"):
        for seed in range(6):
            make_run(tmp_path / f"a-{name}{seed}", name, seed)
            other = seed + 100 * (name == "sgd")  # no seed in common
            make_run(tmp_path / f"b-{name}{seed}", name, other, model__batch_norm=True)
    cards = collect([tmp_path])["verdict"]["cards"]
    assert sorted(card["correction"] for card in cards) == ["Holm, unpaired", "max-type"]
