"""What a folder's comparison ends with beside the curves: times to target, profiles, ranks,
tuning budgets and caveats, on runs with made-up values."""

import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import sub_command
from made_runs import make_run, sweep
from matplotlib.figure import Figure

from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import Comparison, Options, compare, comparison_of, split_trials
from optbench.analysis.final_values import (
    TOGETHER_NOTE,
    Timing,
    cost_of_runs,
    final_values,
    timing_of,
)
from optbench.analysis.over_problems import has_profile, problem_times, scores
from optbench.analysis.summary import summary, to_markdown
from optbench.analysis.table import load_runs
from optbench.analysis.time_to_target import asked_times, time_to_target
from optbench.analysis.trials import envelope, trial_scores
from optbench.common.errors import UserError
from optbench.figures.cost import cost
from optbench.figures.curves import curves
from optbench.figures.over_problems import profile_figure, ranks_figure
from optbench.figures.sensitivity import sensitivity
from optbench.figures.time_to_target import time_to_target_figure
from optbench.figures.trials import rate_scatter, tuning_budget
from optbench.report.collect import collect
from optbench.report.draw import draw_all
from optbench.report.sections.verdict import cost_text
from optbench.stats.tuning_curves import expected_best

main = sub_command("plot")

PNG = Options(formats=["png"])


def small_print(figure: Figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


def tuned(
    folder: Path, names: tuple[str, ...] = ("sgd", "momentum", "adam"), seeds: int = 2
) -> Path:
    """Four trials of each optimizer on two models, with a momentum that varies, and its runs."""
    for model in ("mlp", "cnn"):
        for name in names:
            for index, lr in enumerate((1e-4, 1e-3, 2e-3, 1.0)):
                where = folder / "trials" / f"{model}{name}{index}"
                keys = {"phase": "trials", "model__name": model, "optimizer__beta": 0.1 * index}
                make_run(where, name, lr=lr, diverged_at=9 if lr == 1 else None, **keys)
            for seed in range(1, seeds + 1):
                for phase, lr in (("tuned", 1e-3 if model == "mlp" else 2e-3), ("default", 1e-4)):
                    where = folder / phase / f"{model}{name}{seed}"
                    make_run(where, name, seed, lr=lr, phase=phase, model__name=model)
    entries = [{"optimizer": name, "trials": [{}] * 4} for name in names for _ in range(2)]
    protocol = {"metric": "val_loss", "pick": "final"}
    manifest = {"tuning": protocol, "warnings": ["at the edge"], "contenders": entries}
    (folder / "study.json").write_text(json.dumps(manifest))
    return folder


def test_a_tuned_study_gets_every_figure_and_table(tmp_path: Path) -> None:
    result = draw_all([tuned(tmp_path)], options=PNG)
    figures = {path.stem for path in result.paths if path.suffix == ".png"}
    assert figures == {
        "train_loss-epoch", "test_accuracy-epoch", "final_val_loss-lr", "tuning_budget",
        "time_to_target", "performance_profile", "critical_difference",
    }  # fmt: skip
    assert result.warnings[0] == "at the edge"
    assert any(
        text.startswith("2 seeds (these settings, of 1 search each): ") for text in result.warnings
    )
    assert "Warning: at the edge" in (tmp_path / "summary.md").read_text()
    times = pd.read_csv(tmp_path / "time_to_target.csv")
    assert list(times["phase"][:6]) == ["tuned"] * 6  # their target holds for the default ones
    assert times.groupby("problem")["target"].nunique().tolist() == [1, 1]
    found = pd.read_csv(tmp_path / "benchmark_score.csv")
    assert list(found["n"]) == [2, 2, 2]
    assert found["score"].between(0, 1).all()


def test_times_to_target_are_those_by_hand_for_every_rule(tmp_path: Path) -> None:
    table = load_runs(sweep(tmp_path, ("adam", "sgd"), 3))
    finals = final_values(table, "val_loss")
    by_name = table.drop_duplicates("run").set_index("run")["optimizer"].astype(str)
    medians = finals.groupby(by_name).median()
    worst = time_to_target(table, "val_loss").frame
    assert set(worst["target"]) == {medians.max()}
    (adam,) = worst[worst["optimizer"] == "adam"].to_dict("records")
    rows = table[(table["optimizer"] == "adam") & (table["val_loss"] <= medians.max())]
    first = rows.groupby("run", observed=True)["epoch"].first()
    assert (adam["epochs"], adam["epochs_max"]) == (first.median(), first.max())
    assert adam["steps"] == 36 * adam["epochs"]
    sgd = time_to_target(table, "val_loss", "baseline:adam").frame.set_index("optimizer").loc["sgd"]
    assert (sgd["reached"], sgd["steps"]) == (0, math.inf)
    half = time_to_target(table, "val_loss", "quantile:0.5").frame
    assert half["reached"].sum() >= 3
    assert time_to_target(table, "val_loss", "0.001").frame["reached"].sum() == 0
    assert "✖" in small_print(time_to_target_figure(time_to_target(table, "val_loss", 0.001)))
    for rule in ("best", "baseline:", "quantile:x", "quantile:2", "baseline:nadam"):
        with pytest.raises(UserError):
            time_to_target(table, "val_loss", rule)


def test_a_target_is_asked_for_on_the_command_line(tmp_path: Path, capsys) -> None:
    sweep(tmp_path, ("adam", "sgd"), 1)
    assert main([str(tmp_path), "--format", "png", "--target", "0.4"]) == 0
    assert set(pd.read_csv(tmp_path / "time_to_target.csv")["target"]) == {0.4}
    assert main([str(tmp_path), "--target", "soon"]) == 1
    assert "baseline:NAME" in capsys.readouterr().err


def test_a_diverged_optimizer_sets_no_target(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 2)
    for seed in range(2):
        make_run(tmp_path / f"bad{seed}", "rmsprop", seed, diverged_at=40)
    frame = time_to_target(load_runs(tmp_path), "val_loss").frame.set_index("optimizer")
    assert np.isfinite(frame["target"]).all()
    assert frame.loc["rmsprop", "steps"] == math.inf
    with pytest.raises(UserError, match="diverged"):
        time_to_target(load_runs(tmp_path), "val_loss", "baseline:rmsprop")


def test_profiles_are_over_problems_only(tmp_path: Path) -> None:
    table = load_runs(sweep(tmp_path / "one", ("adam", "sgd"), 2))
    with pytest.raises(UserError, match="over problems"):
        problem_times(time_to_target(table, "val_loss"))
    assert not has_profile(comparison_of(table))
    sweep(tmp_path / "two", ("adam", "sgd"), 2, model__name="cnn")
    found = time_to_target(load_runs(tmp_path), "val_loss")
    matrix = problem_times(found)
    assert scores(matrix)["optimizer"].tolist() == ["adam", "sgd"]
    axes = profile_figure(matrix).axes[0]
    assert axes.get_xlim() == (1, 4)
    assert "adam (1.00)" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_ranks_over_seeds_of_one_problem_say_so(tmp_path: Path) -> None:
    names = ("adam", "sgd", "momentum")
    sweep(tmp_path / "a", names, 6)
    text = small_print(ranks_figure(load_runs(tmp_path), "train_loss", None))
    assert "n = 6 seeds of one problem" in text
    sweep(tmp_path / "b", names, 1, model__name="cnn")
    text = small_print(ranks_figure(load_runs(tmp_path), "train_loss", None))
    assert "n = 2 problems" in text
    with pytest.raises(UserError, match="three optimizers"):
        ranks_figure(load_runs(sweep(tmp_path / "c", ("adam", "sgd"), 6)), "train_loss", None)


def test_trials_of_several_hyperparameters_are_one_series(tmp_path: Path) -> None:
    trials, _ = split_trials(load_runs(tuned(tmp_path)))
    figure = rate_scatter(trials)
    assert "a point per trial" in small_print(figure)
    assert "✖ diverged" in small_print(figure)
    (box,) = figure.legends or [figure.axes[0].get_legend()]
    legend = box.get_texts()
    assert {text.get_text().split("\n")[0] for text in legend} == {"sgd", "momentum", "adam"}
    x = np.array([1e-4, 1.1e-3, 2e-3, 1.0, 1.5])
    y = np.array([3.0, 2.0, 1.0, math.inf, 4.0])
    assert envelope(x, y, smaller=True).tolist() == [0, 2, 4]
    assert envelope(x, -y, smaller=False).tolist() == [0, 2, 4]

    figure = tuning_budget(trials)
    (line,) = [entry for entry in figure.axes[0].lines if "adam" in str(entry.get_label())]
    values = trial_scores(trials, "val_loss", "final")
    one = values[(values["optimizer"] == "adam") & (values["problem"] == values["problem"].iloc[0])]
    curve = expected_best(one["score"].to_numpy())
    drawn = np.asarray(line.get_ydata(), dtype=float)
    assert drawn[-1] == pytest.approx(curve["median"].iloc[-1])  # a mean would be infinite
    assert (curve["median_low"] <= curve["median"]).all()
    assert (curve["median"] <= curve["median_high"]).all()


def told(folder: Path, y: str = "train_loss", **options) -> list[str]:
    trials, table = split_trials(load_runs(folder))
    found = None if trials is table else trials
    return caveats(Comparison(table, found, Options(**options)), y)


def test_a_first_place_is_no_win_within_the_noise(tmp_path: Path) -> None:
    sweep(tmp_path / "far", ("adam", "sgd"), 8)
    assert told(tmp_path / "far") == []
    sweep(tmp_path / "few", ("adam", "sgd"), 3)
    (few,) = told(tmp_path / "few")  # and not again of the leader
    assert few.startswith("3 seeds: with fewer than 6 pairs")
    assert told(sweep(tmp_path / "alone", ("adam",), 1)) == []
    sweep(tmp_path / "single", ("adam", "sgd"), 1)
    assert [text[:8] for text in told(tmp_path / "single")] == ["1 seed: "]


@pytest.mark.slow
def test_unequal_budgets_are_seen_however_the_runs_came_together(tmp_path: Path) -> None:
    sweep(tmp_path / "u", ("adam", "sgd"), 8)
    sweep(tmp_path / "u", ("sgd",), 8, lr=0.01)
    assert any("1 (adam) to 2 (sgd)" in text for text in told(tmp_path / "u"))

    one, two = tuned(tmp_path / "one"), tuned(tmp_path / "two", ("nadam",))
    manifest = json.loads((two / "study.json").read_text())
    for entry in manifest["contenders"]:
        entry["trials"] += [{}]
    (two / "study.json").write_text(json.dumps(manifest))
    result = draw_all([one, two], tmp_path / "o", PNG)
    assert any("4 trials (adam) to 5 (nadam)" in text for text in result.warnings)
    for entry in ("adam0", "adam1"):
        for model in ("mlp", "cnn"):
            for path in (one / "trials" / f"{model}{entry}").iterdir():
                path.unlink()
    assert any("2 trials (adam) to 4" in text for text in told(one))

    sweep(tmp_path / "plain", ("rmsprop",), 2, phase=None)
    result = draw_all([one, tmp_path / "plain"], tmp_path / "o", PNG._replace(facet=["model.name"]))
    assert any("outside of a tuned study (rmsprop)" in text for text in result.warnings)


def test_edges_and_divergence_of_ordinary_sweeps_are_seen(tmp_path: Path) -> None:
    for index, lr in enumerate((3e-3, 1e-2, 1e-1)):
        make_run(tmp_path / f"a{index}", "adam", lr=lr)
        make_run(tmp_path / f"s{index}", "sgd", lr=lr, diverged_at=None if index == 1 else 5)
    texts = told(tmp_path)
    assert any("adam: the best learning rate (0.003) is the smallest tried" in t for t in texts)
    assert "sgd: 2 of 3 runs diverged" in texts
    assert not any("sgd: the best" in text for text in texts)


def test_step_costs_are_columns_and_empty_where_not_measured(tmp_path: Path) -> None:
    cost = {"step_ms": 0.5, "state_bytes": 800, "parameters": 100}
    make_run(tmp_path / "a", "adam", record={"cost": cost})
    make_run(tmp_path / "b", "sgd", record={"cost": None})
    frame = summary(load_runs(tmp_path)).set_index("optimizer")
    assert frame.loc["adam", ["step_ms", "state_bytes_per_parameter"]].tolist() == [0.5, 8]
    assert frame.loc["sgd", ["step_ms", "state_bytes_per_parameter"]].isna().all()
    assert frame["ms_per_step"].between(10, 10.6).all()
    lines = to_markdown(frame.reset_index()).splitlines()
    assert lines[2].endswith("| 0.5000 | 8.000 |")
    assert lines[3].endswith("|  |  |")


def test_the_peak_of_memory_is_a_column_in_megabytes(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "adam", record={"peak_bytes": 321_000_000})
    make_run(tmp_path / "b", "sgd")
    frame = summary(load_runs(tmp_path)).set_index("optimizer")
    assert frame.loc["adam", "peak_mb"] == 321
    assert np.isnan(frame.loc["sgd", "peak_mb"])
    lines = to_markdown(frame.reset_index()).splitlines()
    assert lines[0].endswith("| peak memory (MB) |")
    assert lines[2].endswith("| 321.0 |")


@pytest.mark.parametrize("new", [True, False])
def test_seconds_are_those_of_the_majoritys_engine(tmp_path: Path, new: bool) -> None:
    def engine(name: str) -> dict:
        old = {"compiled_mlp": "dense.cpp", "plain": "torch"}
        return {"record": {"engine": name} if new else {"steps_by": old[name]}}

    for seed in range(2):
        make_run(tmp_path / f"a{seed}", "adam", seed, **engine("compiled_mlp"))
        make_run(tmp_path / f"s{seed}", "sgd", seed, **engine("compiled_mlp" if seed else "plain"))
    make_run(tmp_path / "m", "momentum", **engine("compiled_mlp"))
    alike = load_runs(tmp_path / "a0")
    make_run(tmp_path / "b", "nadam", **engine("plain"))
    table = load_runs(tmp_path)
    said = (
        "seconds and costs are those of the 4 runs by the engine compiled_mlp alone; 2 runs of "
        "nadam, sgd were made by the engine plain: to compare all, make the 4 runs of adam, "
        "momentum, sgd (now by the engine compiled_mlp) again with engine=plain force=true"
    )
    for text_of in (
        lambda table: to_markdown(summary(table)).replace("Seconds and", "seconds and"),
        lambda table: captions(time_to_target_figure(time_to_target(table, "train_loss", 1.0))),
        lambda table: captions(curves(table, x="seconds")),
    ):
        assert said in text_of(table)
        assert "seconds and costs" not in text_of(alike)
    assert "seconds and costs" not in captions(curves(table))

    frame = summary(table).set_index("optimizer")
    assert np.isfinite(frame["train_loss_median"]).all()
    times = ["seconds_per_epoch", "ms_per_step"]
    assert frame.loc["nadam", times].isna().all()
    assert frame.loc[["adam", "sgd", "momentum"], times].notna().all(axis=None)
    costs = cost_of_runs(table)
    own = costs.loc[str(tmp_path / "s1"), "ms_per_step"]
    assert frame.loc["sgd", "ms_per_step"] == own
    found = time_to_target(table, "train_loss", 1.0).frame.set_index("optimizer")
    assert np.isfinite(found.loc["nadam", ["steps", "epochs"]].astype(float)).all()
    assert math.isnan(found.loc["nadam", "seconds"])
    assert found.loc["sgd", "reached"] == 2
    assert {line.get_label() for line in curves(table, x="seconds").axes[0].lines} == {
        "adam", "sgd", "momentum",
    }  # fmt: skip
    repeated = {run["run"]: run["command"] for run in collect([tmp_path])["runs"]["runs"]}
    assert "engine=" not in repeated["b"]  # another one than plain does not serve it
    assert repeated["m"].endswith(" engine=plain force=true")
    drawn = collect([tmp_path])["curves"]
    assert ["seconds" in run["epochs"] for run in drawn["runs"]].count(False) == 2
    assert drawn["timing"] == said


def test_of_equally_many_runs_the_plain_engine_counts(tmp_path: Path) -> None:
    for name in ("plain", "compiled_mlp", "another"):
        make_run(tmp_path / name, "adam" if name == "plain" else name, record={"engine": name})
    timing = timing_of(load_runs(tmp_path))
    assert timing.untimed == {str(tmp_path / name) for name in ("compiled_mlp", "another")}
    assert timing.again == dict.fromkeys(timing.untimed, "plain")
    table = load_runs(tmp_path / "another", tmp_path / "compiled_mlp")
    assert timing_of(table).untimed == {str(tmp_path / "compiled_mlp")}
    assert set(timing_of(table).again.values()) == {"plain"}  # which serves all for sure
    assert timing_of(load_runs(tmp_path / "another")).sentence == ""


def test_each_problem_has_an_engine_of_its_own(tmp_path: Path) -> None:
    for size, engine in ((128, "compiled_mlp"), (600, "plain")):
        for name in ("sgd", "adam"):
            where = tmp_path / f"{name}{size}"
            make_run(where, name, batch_size=size, record={"engine": engine})
    assert timing_of(load_runs(tmp_path)) == Timing()
    assert summary(load_runs(tmp_path))["ms_per_step"].notna().all()
    make_run(tmp_path / "s", "sgd", 1, batch_size=600, record={"engine": "compiled_mlp"})
    timing = timing_of(load_runs(tmp_path))
    assert timing.untimed == {str(tmp_path / "s")}
    assert timing.sentence == (
        "in 1 of 2 problems seconds and costs are those of the 2 runs by the engine plain alone; "
        "1 run of sgd was made by the engine compiled_mlp: to compare all, make the 1 run of sgd "
        "(now by the engine compiled_mlp) again with engine=plain force=true"
    )


@pytest.mark.parametrize(
    ("engines", "untimed", "again"),
    [
        ([None, None, None], "", {}),
        (["compiled_mlp", "compiled_mlp", None], "2", {"2": "compiled_mlp"}),
        ([None, None, "compiled_mlp"], "2", dict.fromkeys("012", "plain")),
        (["plain", "plain", None], "2", {"2": "plain"}),
        (["compiled_mlp", "compiled_mlp", "compiled_mlp+plain"], "2", {"2": "compiled_mlp"}),
        (["compiled_mlp+plain"] * 2 + ["compiled_mlp"], "01", dict.fromkeys("01", "compiled_mlp")),
        (["compiled_mlp+plain"] * 3, "012", dict.fromkeys("012", "plain")),
    ],
)
def test_runs_that_name_no_engine_or_two_are_no_others(tmp_path, engines, untimed, again) -> None:
    for seed, engine in enumerate(engines):
        make_run(tmp_path / str(seed), "sgd", seed, record={"engine": engine} if engine else {})
    timing = timing_of(load_runs(tmp_path))
    assert timing.untimed == {str(tmp_path / name) for name in untimed}
    assert timing.again == {str(tmp_path / name): engine for name, engine in again.items()}


@pytest.mark.slow
def test_the_runs_of_another_engine_come_with_one_command(tmp_path: Path) -> None:
    sweep = tmp_path / "results" / "a sweep"
    for seed in range(2):
        for name, lr in (("SGD", 0.01), ("Adam", 0.001)):
            keys = {"engine": "auto", "optimizer___target_": f"torch.optim.{name}", "lr": lr}
            record = {"engine": "compiled_mlp"}
            make_run(sweep / f"{name}{seed}", name.lower(), seed, record=record, **keys)
        make_run(sweep / f"adamax{seed}", "adamax", seed, record={"engine": "plain"})
    written = draw_all([sweep], tmp_path / "out", Options(formats=["png"])).paths
    text = next(path for path in written if path.name == "summary.md").read_text()
    (line,) = re.findall("`(python.*)`", text)
    assert line in collect([sweep])["ranking"]["note"]
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "optbench", "-m"]
    assert {"optimizer=adam,sgd", "seed=0,1", "engine=plain", "force=true"} <= set(words)
    assert f"results_dir='{sweep}'" in words
    assert "name=plain" in words
    # more than one command: the learning rates are another for each run
    for seed in range(5):
        record = {"engine": "compiled_mlp"}
        make_run(sweep / f"lr{seed}", "sgd", 7, lr=0.1 + seed, record=record)
    assert "`" not in collect([sweep])["ranking"]["note"]
    assert "each run's command" in collect([sweep])["ranking"]["note"]


def test_a_studys_own_command_makes_its_runs_again(tmp_path: Path) -> None:
    for seed in range(3):
        record = {"engine": "plain" if seed else "compiled_mlp"}
        for name in ("sgd", "adam"):
            make_run(tmp_path / f"{name}{seed}", name, seed, phase="tuned", record=record)
    page = collect([tmp_path])
    assert "the study's command with engine=plain force=true" in page["ranking"]["note"]
    assert not any("force=true" in run["command"] for run in page["runs"]["runs"])


def test_costs_of_another_engine_are_shown_nowhere(tmp_path: Path) -> None:
    cost_of = {"step_ms": 0.5, "state_bytes": 800, "parameters": 100}
    for seed in range(3):
        record = {"engine": "plain", "cost": cost_of}
        make_run(tmp_path / f"a{seed}", "adam", seed, record=record)
    make_run(tmp_path / "s", "sgd", record={"engine": "compiled_mlp", "cost": cost_of})
    table = load_runs(tmp_path)
    assert summary(table).set_index("optimizer")["step_ms"].isna()["sgd"]
    figure = cost(table)
    assert {line.get_label() for line in figure.axes[0].lines if line.get_marker() != "None"} == {
        "adam"
    }
    assert timing_of(table).sentence in captions(figure)


def captions(figure) -> str:
    texts = [text.get_text() for text in figure.texts]
    return " ".join(" ".join(texts).split())


def test_a_share_of_the_time_of_runs_trained_at_once_is_called_so(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "adam", record={"cohort": 16})
    alone = summary(load_runs(make_run(tmp_path / "b", "sgd")))
    assert "runs together" not in to_markdown(alone)
    frame = summary(load_runs(tmp_path)).set_index("optimizer")
    assert frame.loc["adam", "runs_at_once"] == 16
    assert np.isnan(frame.loc["sgd", "runs_at_once"])
    head, _, adam, sgd, *_ = to_markdown(frame.reset_index()).splitlines()
    assert head.endswith("| runs together |")
    assert adam.endswith("| 16 |")
    assert sgd.endswith("|  |")
    assert TOGETHER_NOTE in to_markdown(frame.reset_index())
    costs = {"ms_per_step": 2.0, "step_ms": np.nan, "state_bytes_per_parameter": np.nan}
    costs |= {"peak_mb": np.nan}
    assert cost_text(costs | {"runs_at_once": 16.0}) == (
        "2.000 ms per training step (an equal share: 16 runs were trained together)"
    )
    assert cost_text(costs | {"runs_at_once": np.nan}) == "2.000 ms per training step"


def test_a_panel_that_starts_far_above_does_not_flatten_the_others(tmp_path: Path) -> None:
    sweep(tmp_path, ("adam", "sgd"), 1)
    for index, name in enumerate(("adam", "sgd")):
        path = (
            make_run(tmp_path / f"big{index}", name, initializer__name="too_large") / "epochs.csv"
        )
        table = pd.read_csv(path)
        table["train_loss"] *= 1000
        table.to_csv(path, index=False)
    table = load_runs(tmp_path)
    figure = curves(table)
    (low, high), (_, far) = (axes.get_ylim() for axes in figure.axes)
    assert far > 100 * high > 100 * low
    assert "its own y axis" in small_print(figure)
    lines = curves(table, lines="initializer.name")  # in one panel: the usual start decides
    assert all(axes.get_ylim()[1] < 5000 for axes in lines.axes)


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_short_logarithmic_axes_have_labels(tmp_path: Path, factor: float) -> None:
    for index, lr in enumerate((1e-3, 3e-3)):
        path = make_run(tmp_path / f"{index}", "adam", lr=lr) / "epochs.csv"
        table = pd.read_csv(path)
        table["train_loss"] = 1 + factor * table["train_loss"]
        table.to_csv(path, index=False)
    table = load_runs(tmp_path)
    for figure in (curves(table), sensitivity(table)):
        axes = figure.axes[0]
        figure.draw_without_rendering()
        low, high = axes.get_ylim()
        ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
        assert len(ticks) >= 2
        assert all(label.get_text() for label in axes.get_yticklabels())


def test_a_target_that_no_run_reached_is_said(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"a{seed}", "adam", seed)
        make_run(tmp_path / f"b{seed}", "sgd", seed)
    missed = "no run reached the target"
    assert [text for text in told(tmp_path, target="1e-6") if text.startswith(missed)] == [
        "no run reached the target, a validation loss of 1e-06: choose one that some run "
        "reaches (figure.target, --target)"
    ]
    assert not any(text.startswith(missed) for text in told(tmp_path, target="1.5"))


@pytest.mark.parametrize(
    ("budgets", "asked", "clock"),
    [((5, 5), None, "seconds"), ((5, None), None, "epoch"), ((5, 5), "step", "step")],
)
def test_runs_of_equal_seconds_are_drawn_against_seconds(tmp_path, budgets, asked, clock):
    for name, seconds in zip(("adam", "sgd"), budgets, strict=True):
        make_run(tmp_path / name, name, budget_seconds=seconds)
    made = Comparison(load_runs(tmp_path), options=Options(x=asked))
    assert made.x == clock


def test_a_subset_is_named_below_the_figure(tmp_path):
    for name in ("adam", "sgd"):
        make_run(tmp_path / name, name, data__subset=500)
    assert "mnist_5k, subset of 500 examples, mlp" in small_print(curves(load_runs(tmp_path)))


def test_a_target_of_a_test_metric_is_that_of_validation(tmp_path):
    for name in ("adam", "sgd"):
        for seed in range(2):
            make_run(tmp_path / f"{name}{seed}", name, seed)
    made = Comparison(load_runs(tmp_path), options=Options(y="test_accuracy", target="0.2"))
    assert asked_times(made).column == "val_accuracy"
    low = Comparison(load_runs(tmp_path), options=Options(y="test_accuracy", target="0"))
    assert "all runs are at the target, a validation accuracy of 0 %" in " ".join(caveats(low))


def test_a_panel_without_a_value_is_left_out_and_losses_share_no_axis(tmp_path):
    for loss, name in (("cross_entropy", "mlp"), ("mse", "linear")):
        for optimizer in ("adam", "sgd"):
            run = make_run(
                tmp_path / f"{name}-{optimizer}", optimizer, model__name=name, loss__name=loss
            )
            if loss == "mse":
                rows = pd.read_csv(run / "epochs.csv")
                rows.assign(test_accuracy=math.nan).to_csv(run / "epochs.csv", index=False)
    table = load_runs(tmp_path)
    figure = curves(table, y="test_accuracy", facet=["model.name"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["model = mlp"]
    assert "left out, without values: linear" in small_print(figure)
    assert "each panel has its own y axis" in small_print(curves(table, facet=["model.name"]))


def test_a_leader_by_training_loss_that_validation_data_refute_is_named(tmp_path):
    for name in ("sgd", "adam"):
        for seed in range(6):
            make_run(tmp_path / f"{name}{seed}", name, seed)
    assert not [text for text in caveats(compare([tmp_path])) if "by validation" in text]
    for path in tmp_path.glob("adam*/epochs.csv"):  # adam leads, and overfits
        frame = pd.read_csv(path)
        frame["val_loss"] += 10.0
        frame.to_csv(path, index=False)
        record = json.loads((path.parent / "run.json").read_text())
        for key in ("csv_sha256", "sha256"):
            record.pop(key, None)
        (path.parent / "run.json").write_text(json.dumps(record))
    (told,) = [text for text in caveats(compare([tmp_path])) if "by validation" in text]
    assert told.startswith(
        "adam is first by training loss, and worse than sgd by validation loss in"
    )
    assert "each of 6 seeds" in told
