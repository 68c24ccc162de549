"""Repeated searches in tables and verdicts: units, inclusion, spreads, the map of rates."""

import math

import numpy as np
import pandas as pd
import pytest

from optbench.analysis.comparison import Comparison
from optbench.analysis.pairing import by_seed
from optbench.analysis.summary import summary
from optbench.analysis.time_to_target import asked_times, stop_target, time_to_target
from optbench.analysis.trials import order_of, trial_scores
from optbench.analysis.tuned import chosen, inclusion, rate_decay, searched, spread
from optbench.analysis.verdict import verdict_sentences, verdicts
from optbench.common.errors import UserError
from optbench.figures.tuned.rate_decay import rate_decay as rate_decay_figure
from optbench.formats.study import Protocol

SPACE = {"lr": {"low": 1e-3, "high": 1.0, "scale": "log"}}


def runs_of(phase, optimizer, losses, rate=None):
    """A row per run: losses, (searches, seeds), each search at a rate of its own."""
    rows = []
    for repeat, own in enumerate(losses):
        for k, loss in enumerate(own):
            rows.append(
                {
                    "run": f"{phase}-{optimizer}-{repeat}-{k}",
                    "run_id": f"{phase}{repeat}{optimizer}{k}",
                    "problem": "p", "optimizer": optimizer, "seed": 1000 * repeat + k + 1,
                    "status": "completed", "phase": phase, "repeat": repeat, "epoch": 1.0,
                    "step": 10,
                    "optimizer.lr": rate or 0.1 / (repeat + 1), "val_loss": loss, "test_loss": loss,
                    "train_loss": loss, "seconds": 1.0, "engine": "plain", "model.name": "mlp",
                    "dataset.name": "d",
                }
            )  # fmt: skip
    return rows


def study_of(tuned, default=None, trials=None, spaces=None):
    """A comparison of a tuned study. tuned, default: losses by optimizer."""
    rows = [row for name, losses in tuned.items() for row in runs_of("tuned", name, losses)]
    for name, losses in (default or {}).items():
        rows += runs_of("default", name, losses, rate=0.01)
    table = pd.DataFrame(rows)
    for name in ("state_bytes_per_parameter", "step_ms", "step_spread", "runs_at_once", "peak_mb"):
        table[name] = math.nan
    entries = [
        {"optimizer": name, "problem": "p", "repeat": repeat, "space": (spaces or {}).get(name,
        SPACE),
         "trials": [], "warnings": [], "chosen": {"lr": 0.1}}
        for name, losses in tuned.items()
        for repeat in range(len(losses))
    ]  # fmt: skip
    manifest = {"tuning": {"metric": "val_loss", "pick": "final"}, "contenders": entries,
                "earlier": [], "warnings": [], "phases": {}}  # fmt: skip
    tried = [row for name, losses in (trials or {}).items()
             for row in runs_of("trials", name, losses)]  # fmt: skip
    frame = pd.DataFrame(tried) if tried else None
    return Comparison(table, frame, manifests=[manifest], protocol=Protocol())


def normal(shape, mean=1.0, spread=0.01, seed=0):
    return np.random.default_rng(seed).normal(mean, spread, shape)


def test_the_unit_of_a_test_is_the_search_from_six_on():
    losses = normal((6, 2))
    made = study_of({"adam": losses, "sgd": losses + 0.1})
    frame = by_seed(made, "test_loss")
    assert frame["adam"].to_numpy() == pytest.approx(losses.mean(axis=1))
    assert list(frame.index.get_level_values("seed")) == list(range(6))
    few = by_seed(study_of({"adam": losses[:5], "sgd": losses[:5]}), "test_loss")
    assert len(few) == 10  # seeds of the settings found


def test_searches_of_an_optimizer_are_one_series_though_each_has_its_setting():
    made = study_of({"adam": normal((6, 1)), "sgd": normal((6, 1))})
    assert sorted(made.plan.runs["variant"].unique()) == ["adam", "sgd"]
    assert made.searches == 6


def test_a_verdict_says_whether_it_is_on_optimizers_or_on_settings():
    first = normal((8, 2))
    tuned = {"adam": first, "sgd": first + normal((8, 2), 0.2)}
    made = study_of(tuned, trials={"adam": first, "sgd": first + 0.2})
    found = verdicts(made)
    assert list(found["n"]) == [8]
    assert found["verdict"].iloc[0].startswith("worse (n = 8, p = 0.0078)")
    assert "over 8 searches" in verdict_sentences(found, "val_loss", made.searches)
    assert "not on the optimizers" not in verdict_sentences(found, "val_loss", made.searches)
    one = study_of({k: v[:1].repeat(8, axis=1) for k, v in tuned.items()})
    assert one.searches == 1
    assert "not on the optimizers" in verdict_sentences(found, "val_loss", one.searches)


def test_the_leader_by_validation_has_the_best_median_over_searches():
    lucky = np.array([[0.01], [1.2], [1.2]])  # one lucky search is no reason to lead
    made = study_of({"a": lucky, "b": lucky}, trials={"a": lucky, "b": np.ones((3, 1))})
    assert order_of(trial_scores(made.of_trials, "val_loss", "final"), "val_loss") == ["b", "a"]


def test_a_tuned_setting_worse_than_the_default_is_warned_of_from_three_pairs_on():
    default = normal((3, 1))
    worse = default + np.array([[0.2], [0.21], [0.19]])
    (text,) = inclusion.under_tuned(study_of({"adam": worse}, {"adam": default}), "test_loss")
    assert text.startswith("under-tuned: adam ends 0.2 (n = 3, p = ")
    assert "uncorrected) worse by test loss when tuned than with its defaults" in text
    assert not list(
        inclusion.under_tuned(study_of({"adam": default}, {"adam": worse}), "test_loss")
    )
    two = study_of({"adam": worse[:2]}, {"adam": default[:2]})
    assert not list(inclusion.under_tuned(two, "test_loss"))


def test_a_method_worse_than_a_special_case_of_its_space_is_warned_of():
    sgd, momentum = normal((6, 1)), normal((6, 1), 1.3, seed=1)
    holding = SPACE | {"momentum": {"low": 0.0, "high": 0.9, "scale": "one_minus_log"}}
    made = study_of({"sgd": sgd, "momentum": momentum}, spaces={"momentum": holding})
    (text,) = inclusion.under_tuned(made, "test_loss")
    assert "momentum ends" in text
    assert "worse by test loss than sgd, which its search space holds (momentum=0)" in text
    narrow = SPACE | {"momentum": {"low": 0.5, "high": 0.9, "scale": "one_minus_log"}}
    for space in (SPACE, narrow):
        made = study_of({"sgd": sgd, "momentum": momentum}, spaces={"momentum": space})
        assert not list(inclusion.under_tuned(made, "test_loss"))


def test_diverged_runs_count_as_worse_and_not_as_nothing():
    default = normal((8, 1))
    lost = default.copy()
    lost[:6] = math.inf
    (text,) = inclusion.under_tuned(study_of({"sgd": lost}, {"sgd": default}), "test_loss")
    assert "n = 8" in text


def test_spreads_over_searches_and_seeds_are_told_apart():
    luck = normal((400, 1), spread=0.3)
    found = spread.spreads(study_of({"adam": luck + normal((400, 2), 0, 0.05, 1)}), "test_loss")
    (row,) = found.to_dict("records")
    assert row["searches"] == 400
    assert row["over_searches"] == pytest.approx(0.3, rel=0.1)
    assert row["over_seeds"] == pytest.approx(0.05, rel=0.1)
    one = study_of({"adam": luck}, {"adam": normal((400, 1), 0, 0.05, 2)})
    (row,) = spread.spreads(one, "test_loss").to_dict("records")
    assert (row["from"], row["over_seeds"]) == ("default runs", pytest.approx(0.05, rel=0.1))
    assert "| adam | 400 |" in spread.spread_text(found, "test_loss")


def test_the_spreads_of_several_problems_are_told_apart():
    found = pd.DataFrame(
        [[p, "adam", 9, 0.1, 0.2, "within searches"] for p in ("mlp", "cnn")],
        columns=["problem", "optimizer", "searches", "over_searches", "over_seeds", "from"],
    )
    text = spread.spread_text(found, "test_loss")
    assert "| problem | optimizer | searches | over searches | over seeds | seeds of |" in text
    assert "| mlp | adam | 9 | 0.1000 | 0.2000 | within searches |" in text
    assert "| problem |" not in spread.spread_text(found[:1], "test_loss")


def test_what_was_searched_is_told_with_what_was_widened_and_what_was_left():
    beta = {"low": 0.8, "high": 0.99, "scale": "one_minus_log"}
    narrow = {"lr": SPACE["lr"], "betas": [beta, beta], "amsgrad": {"values": [True, False]}}
    wide = narrow | {"lr": SPACE["lr"] | {"low": 1e-4}, "betas": [beta, beta | {"high": 0.999}]}
    entries = [
        {"optimizer": "adam", "space": narrow, "space_before": None, "not_searched": {"eps": 1e-8}},
        {"optimizer": "adam", "space": wide, "space_before": narrow, "not_searched": {"eps": 1e-8}},
        {"optimizer": "sgd", "space": {}, "not_searched": {}},
        {"optimizer": "old"},  # of a version that did not tell
    ]
    found = searched.searched_spaces([{"contenders": entries, "earlier": []}])
    assert [row.optimizer for row in found] == ["adam", "sgd"]
    assert found[0].searched == (
        "lr [0.001, 1] (log), widened to [0.0001, 1] in 1 of 2 searches; "
        "betas [0.8, 0.99] and [0.8, 0.99] (one minus log), widened to [0.8, 0.99] and "
        "[0.8, 0.999] in 1 of 2 searches; amsgrad {true, false}"
    )
    assert found[0].left == "eps=1e-08"
    assert found[1].searched == "nothing: its hyperparameters are given"
    text = searched.searched_text(found)
    assert text.startswith(
        "What was searched:\n\n| optimizer | searched | left at their defaults |"
    )
    assert text.endswith("| sgd | nothing: its hyperparameters are given |  |\n")
    assert searched.searched_text([]) == ""


def test_the_map_shows_the_best_of_each_cell_and_what_diverged():
    part = pd.DataFrame(
        {
            "lr": [0.02, 0.025, 0.2, 0.2, 2.0], "decay": [0.0, 0.0, 1e-3, 1e-3, 1e-2],
            "score": [0.5, 0.4, 0.41, 3.0, math.inf],
        }
    )  # fmt: skip
    made = rate_decay.map_of(part, "sgd", "p", smaller=True)
    assert made.decays == ["0", "0.001", "0.003", "0.01"]
    assert made.best.shape == (4, 5)
    assert made.best[0, 0] == 0.4  # the best whatever the rest
    assert made.best[1, 2] == 0.41
    assert made.lost[3, 4]
    assert made.lost.sum() == 1
    assert made.optimum == (0, 0)
    assert made.near[1, 2]
    assert made.near.sum() == 2
    assert made.rates[0] == pytest.approx(0.01)


def test_a_map_without_two_rates_and_decays_is_refused():
    made = study_of({"adam": normal((3, 1))}, trials={"adam": normal((3, 1))})
    with pytest.raises(UserError, match="no learning rate and weight decay"):
        rate_decay.rate_decay_maps(made.of_trials, "val_loss", "final")


def test_a_map_leaves_out_an_optimizer_whose_trials_all_diverged():
    made = study_of(
        {"adam": normal((3, 1)), "sgd": normal((3, 1))},
        trials={"adam": normal((6, 3)), "sgd": normal((6, 3))},
    )
    trials = made.of_trials.table
    trials["optimizer.weight_decay"] = trials["seed"] % 1000 * 0.01
    lost = trials["optimizer"] == "sgd"
    trials.loc[lost, "status"] = "diverged"
    trials.loc[lost, "val_loss"] = math.inf
    (one,) = rate_decay.rate_decay_maps(made.of_trials, "val_loss", "final")
    assert one.optimizer == "adam"


def test_each_problem_has_a_column_of_maps_with_colours_beside_each_maps_best():
    made = study_of(
        {"adam": normal((3, 1)), "sgd": normal((3, 1))},
        trials={"sgd": normal((6, 3)), "adam": normal((6, 3))},
    )
    here = made.of_trials.table
    here["optimizer.weight_decay"] = here["seed"] % 1000 * 0.01
    there = here.assign(problem="q", val_loss=9 * here["val_loss"], **{"model.name": "cnn"})
    there = there.assign(run="cnn-" + there["run"], run_id="cnn-" + there["run_id"])
    lacking = there[there["optimizer"] == "sgd"]  # adam has no map of the second problem
    trials = Comparison(pd.concat([here, lacking], ignore_index=True))
    figure = rate_decay_figure(trials)
    *panels, bar = figure.axes
    titles = [axes.get_title("left").split(":")[0] for axes in panels]
    assert titles == ["sgd, mlp", "sgd, cnn", "adam, mlp"]
    specs = [axes.get_subplotspec() for axes in panels]
    assert [(s.rowspan.start, s.colspan.start) for s in specs] == [(0, 0), (0, 1), (1, 0)]
    for axes in panels:
        assert axes.collections[0].get_array().min() == 1.0
        assert axes.collections[0].norm.vmax == 3.0
    best = trials.table[trials.table["problem"] == "q"]["val_loss"].min()
    assert f": {best:#.4g} (n = 18)" in panels[1].get_title("left")
    assert [axes.get_xlabel() for axes in panels] == ["", "learning rate", "learning rate"]
    assert bar.get_ylabel() == "times the best"


def test_the_runs_at_the_defaults_alone_are_judged_by_the_same_metric():
    losses = normal((6, 2))
    made = study_of({"adam": losses, "sgd": losses}, default={"adam": losses, "sgd": losses + 0.1})
    defaults = made.table[made.table["phase"] == "default"]
    alone = Comparison(defaults, None, manifests=made.manifests, protocol=Protocol())
    assert made.judged == alone.judged == "test_loss"
    assert not alone.few_searches


def test_tables_are_of_searches_and_targets_of_runs():
    losses = {"adam": normal((6, 2), 1.0, 0.2), "sgd": normal((6, 2), 2.0, 0.2, seed=1)}
    made = study_of(losses)
    table = summary(made, "test_loss").set_index("optimizer")
    for name, values in losses.items():
        means = values.mean(axis=1)
        row = table.loc[name]
        assert row["test_loss_median"] == pytest.approx(np.median(means))
        assert row["test_loss_max"] == pytest.approx(means.max())
        assert row["test_loss_sd"] == pytest.approx(means.std(ddof=1))
        assert row["seeds"] == 12
    found = time_to_target(made, "val_loss")
    worst = np.sort(losses["sgd"].ravel())[6]  # of 12 runs, the worse of the middle two
    assert found.frame["target"].tolist() == pytest.approx([worst] * 2)
    assert found.frame.set_index("optimizer").loc["sgd", "reached"] == 7


def test_the_target_of_stop_at_is_that_of_the_times():
    made = study_of({"adam": normal((6, 2)), "sgd": normal((6, 2), 2.0)})
    made.table["stop_at.metric"], made.table["stop_at.value"] = "val_loss", "1.5"
    assert stop_target(made) == ("val_loss", 1.5)
    assert set(asked_times(made).frame["target"]) == {1.5}
    made.table.loc[made.table.index[0], "stop_at.value"] = "null"
    assert stop_target(made) is None


def test_the_chosen_setting_is_that_of_the_best_search() -> None:
    rows = runs_of("trials", "adam", [[0.5], [0.4]]) + runs_of("trials", "sgd", [[0.9], [0.8]])
    entries = [
        {
            "optimizer": name, "score": score, "chosen": {"lr": lr, "betas": [0.9, 0.123456]},
            "trials": [{"run_ids": [f"trials{k}{name}0"]}],
        }
        for name, results in {"adam": [(0.5, 0.01), (0.4, 0.0212345)], "sgd": [(0.9, 1.0)]}.items()
        for k, (score, lr) in enumerate(results)
    ]  # fmt: skip
    made = Comparison(
        pd.DataFrame(rows),
        manifests=[{"contenders": entries}],
        protocol=Protocol("val_loss", "last"),
    )
    adam, sgd = chosen.chosen_settings(made, lambda problem: f"<{problem}>")
    assert adam[:3] == ("<p>", "adam", "lr=0.02123, betas=[0.9, 0.1235]")
    assert adam[3:] == ("0.4000", "2 searches; lr 0.01 to 0.02123")
    assert sgd[3:] == ("0.9000", "1 search")
    text = chosen.chosen_text([adam, sgd], "val_loss")
    assert "| <p> | adam | lr=0.02123, betas=[0.9, 0.1235] | 0.4000 |" in text
