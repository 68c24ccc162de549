"""The trials of a study: how many, at which points, in which order."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optbench.common.errors import UserError
from optbench.tuning import halving, study, trials
from optbench.tuning import space as spaces
from optbench.tuning.contenders import DEFAULT, FOLLOW_UP, RUNG, Contender, Trial

LR = {"low": 1e-4, "high": 1.0, "scale": "log"}
DECAY = {"low": 1e-6, "high": 0.1, "scale": "log"}
SETTINGS = {
    "trials": 8, "repeats": 3, "seed": 0, "method": "sobol", "metric": "val_loss", "pick": "final",
    "pruning": None, "widenings": 2, "seeds_per_trial": 1,
}  # fmt: skip


def contenders(*spaces_of, repeats=1):
    entries = [
        Contender([f"optimizer=o{k}"], f"o{k}", space, defaults={"lr": 0.01}, length=("epochs", 9))
        for k, space in enumerate(spaces_of)
    ]
    settings = SETTINGS | {"repeats": repeats}
    return [entry.again(*each) for entry in entries for each in study.repeats(settings)]


def search_all(entries, score, **changes):
    """Return the batches of a study whose trials score as the function says."""
    settings, found = SETTINGS | changes, []
    for batch in trials.batches(entries, settings):
        found.append(batch)
        for one in batch:
            point = one.entry.defaults if one.point is None else one.point
            value = score(one.entry, point)
            status = "completed" if value < inf else "diverged"
            one.entry.problem = "p"
            one.entry.trials.append(Trial(point, value, status, kind=one.kind, length=one.length))
    return found


def at(rate):
    return lambda entry, point: abs(point["lr"] - rate)


@pytest.mark.parametrize("method", ["sobol", "halton", "random", "grid", "tpe"])
def test_the_default_setting_is_the_first_trial_inside_the_budget(method):
    if method == "tpe":
        pytest.importorskip("optuna")
    entries = contenders({"lr": LR}, {"lr": LR, "decay": DECAY})
    search_all(entries, at(0.01), method=method, widenings=0)
    for entry in entries:
        assert [trial.kind for trial in entry.trials].count(DEFAULT) == 1
        assert entry.trials[0].kind == DEFAULT
        assert len(entry.trials) == 8
        assert entry.best == entry.trials[0]  # tuning cannot lose to it by validation


def test_each_repeat_has_points_and_seeds_of_its_own_and_optimizers_share_them():
    entries = contenders({"lr": LR}, {"lr": LR}, repeats=3)
    (batch,) = search_all(entries, at(0.01), widenings=0)
    points = {(one.entry.name, one.entry.repeat): [] for one in batch}
    for one in batch:
        points[one.entry.name, one.entry.repeat].append(one.point)
    for repeat in range(3):
        assert points["o0", repeat] == points["o1", repeat]
    assert points["o0", 0] != points["o0", 1] != points["o0", 2]
    seeds = {
        (one.entry.repeat, word)
        for one in batch
        for word in one.jobs(1)[0]
        if word.startswith("seed=")
    }
    assert seeds == {(0, "seed=0"), (1, "seed=1000"), (2, "seed=2000")}
    last = study.last_plan(entries, SETTINGS, 2)
    of_first = [words for words in last["tuned"] if "repeat=1" in words and "optimizer=o0" in words]
    assert [words[-5:-3] for words in of_first] == [
        ["seed=1001", "phase=tuned"], ["seed=1002", "phase=tuned"],
    ]  # fmt: skip
    everything = [word for words in last["tuned"] for word in words if word.startswith("seed=")]
    assert not {"seed=0", "seed=1000", "seed=2000"} & set(everything)  # new seeds


def test_an_edge_is_followed_beyond_it_at_an_equal_budget_for_all():
    entries = contenders({"lr": LR}, {"lr": LR})
    batches = search_all(
        entries, lambda entry, point: abs(point["lr"] - (30 if entry.name == "o0" else 0.01))
    )
    assert len(batches) == 3  # the first trials, and two widenings
    for batch in batches[1:]:
        counts = [sum(one.entry is entry for one in batch) for entry in entries]
        assert counts == [2, 2]
        assert {one.kind for one in batch} == {FOLLOW_UP}
    beyond = [one.point["lr"] for one in batches[1] if one.entry is entries[0]]
    assert all(1.0 < rate <= 10.0 for rate in beyond)
    assert entries[0].space["lr"]["high"] == 100.0
    assert entries[0].first_space["lr"]["high"] == 1.0
    own = [one.point for batch in batches for one in batch if one.entry is entries[1]]
    assert len({str(point) for point in own}) == len(own)  # its own sequence goes on
    assert entries[1].space == {"lr": LR}


def test_no_trial_follows_an_optimum_inside_nor_one_at_a_natural_end():
    assert len(search_all(contenders({"lr": LR}), at(0.01))) == 1
    momentum = {"lr": LR, "m": {"low": 0.0, "high": 0.999, "scale": "one_minus_log"}}
    entries = contenders(momentum)
    found = search_all(entries, lambda entry, point: abs(point["lr"] - 0.03) + point.get("m", 9))
    assert len(found) == 1  # there is no momentum below 0


@given(trials=st.integers(6, 60), length=st.integers(3, 60))
def test_halving_costs_no_more_epochs_than_unpruned_trials(trials, length):
    rungs = halving.rungs(trials, length)
    assert sum(rung.length * rung.trials for rung in rungs) <= trials * length
    assert rungs[-1].length == length
    assert [rung.trials for rung in rungs] == sorted((r.trials for r in rungs), reverse=True)


def test_halving_prunes_by_the_score_and_never_the_default():
    entries = contenders({"lr": LR})
    score = lambda entry, point: -point["lr"]  # noqa: E731  # the default is among the worst
    batches = search_all(entries, score, pruning="halving", widenings=0)
    rungs = halving.rungs(8, 9)
    assert [len(batch) for batch in batches] == [rung.trials for rung in rungs] == [24, 8, 2]
    assert [batch[0].length for batch in batches] == [1, 3, None]
    assert {trial.kind for trial in entries[0].trials[:32]} == {RUNG}
    best = max(one.point["lr"] for one in batches[0] if one.point)
    assert [one.point and one.point["lr"] for one in batches[-1]] == [None, best]
    assert entries[0].best.point["lr"] == best
    assert [one.jobs(1)[0][1] for one in batches[1][:1]] == ["epochs=3"]


@pytest.mark.parametrize(
    ("trials", "length", "words"),
    [(20, 2, "leaves nothing to prune"), (5, 9, "leaves nothing to choose from")],
)
def test_a_pruning_that_leaves_nothing_is_refused(trials, length, words):
    with pytest.raises(UserError, match=words):
        halving.rungs(trials, length)


def test_a_small_budget_leaves_what_matters_less_at_its_default():
    whole = {
        "lr": LR | {"from": 1}, "weight_decay": DECAY | {"from": 8},
        "betas": [DECAY | {"from": 20}] * 2, "eps": DECAY | {"from": 40}, "own": DECAY,
    }  # fmt: skip
    spaces.check_space(whole)
    searched = {trials: list(spaces.within_budget(whole, trials)[0]) for trials in (4, 8, 20, 40)}
    assert searched[4] == ["lr", "own"]  # without a rank it is always searched
    assert searched[8] == ["lr", "weight_decay", "own"]
    assert searched[20] == ["lr", "weight_decay", "betas", "own"]
    assert searched[40] == list(whole)
    assert spaces.within_budget(whole, 8)[1] == ["betas", "eps"]


@pytest.mark.parametrize("rank", ["early", 0, -1, 1.5, True, None])
def test_ranks_that_are_no_numbers_are_refused(rank):
    with pytest.raises(UserError, match=r"optimizer.search.lr.from must be a whole number"):
        spaces.check_space({"lr": LR | {"from": rank}})


def test_values_are_searched_evenly_and_written_as_they_are():
    space = {"nesterov": {"values": [True, False]}, "fn": {"values": ["a b", None, 3]}}
    spaces.check_space(space)
    points = [spaces.scale_point(space, [u, u]) for u in (0.0, 0.4, 0.6, 1.0)]
    assert [point["nesterov"] for point in points] == [True, True, False, False]
    assert [point["fn"] for point in points] == ["a b", None, None, 3]
    assert spaces.overrides(points[0]) == ["optimizer.nesterov=true", "optimizer.fn='a b'"]
    assert spaces.overrides({"schedule.warmup": 0.1}) == ["schedule.warmup=0.1"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"values": [1]}, "two or more values"),
        ({"values": 3}, "two or more values"),
        ({"values": [1, 2], "scale": "log"}, "two or more values"),
        ({"values": [1, [2]]}, "numbers, words, true, false or null"),
        ({"values": [1, 1]}, "a value twice"),
        ({"high": 1, "scale": "log"}, "must have low, high and scale"),
    ],
)
def test_values_that_mean_nothing_are_refused(spec, words):
    with pytest.raises(UserError, match=words):
        spaces.check_space({"x": spec})
