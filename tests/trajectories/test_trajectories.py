"""Two-dimensional functions, the ways of optimizers over them, and their figures."""

import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from in_process import sub_command
from PIL import Image

from optbench import textbook
from optbench.commands import trajectories
from optbench.common.errors import UserError
from optbench.trajectories import contours
from optbench.trajectories.descent import Trajectory, follow_best, measure, run_optimizer
from optbench.trajectories.functions import FUNCTIONS, quadratic, ravine, rosenbrock, saddle

SGD, ADAM = torch.optim.SGD, torch.optim.Adam
MOMENTUM = partial(SGD, lr=0.1, momentum=0.9)
NESTEROV = partial(SGD, lr=0.1, momentum=0.9, nesterov=True)
everywhere = pytest.mark.parametrize("function", [f() for f in FUNCTIONS.values()], ids=FUNCTIONS)


@everywhere
def test_minima_are_minima(function):
    """No gradient, a positive definite Hessian, and nothing lower in the range that is drawn."""
    for x, y in function.minima:
        at = torch.tensor([x, y], dtype=torch.float64, requires_grad=True)
        value = function.value(at[0], at[1])
        assert value.item() == pytest.approx(function.least, abs=1e-12)
        (gradient,) = torch.autograd.grad(value, at)
        assert gradient.abs().max() < 1e-5
        hessian = torch.autograd.functional.hessian(lambda p: function.value(p[0], p[1]), at)
        assert torch.linalg.eigvalsh(hessian).min() > 0
    x, y = (torch.linspace(*r, 401, dtype=torch.float64) for r in function[4:6])
    grid = function.value(*torch.meshgrid(x, y, indexing="xy"))
    assert grid.min() >= function.least - 1e-12


@pytest.mark.parametrize(
    ("name", "point", "value"),
    [
        ("rosenbrock", (-1.2, 1.0), 24.2),  # More, Garbow & Hillstrom 1981, problem 1
        ("beale", (1.0, 1.0), 14.203125),  # the same, problem 5
        ("himmelblau", (0.0, 0.0), 170.0),
        ("rastrigin", (0.5, 0.5), 40.5),
        ("styblinski_tang", (-2.903534, -2.903534), -78.33233),
        ("saddle", (0.0, 0.0), 0.0),
        ("ravine", (-5.0, -2.0), 10.5),
        ("quadratic", (10.0, 1.0), 1.0),
    ],
)
def test_functions_have_the_published_values(name, point, value):
    x, y = torch.tensor(point, dtype=torch.float64)
    assert FUNCTIONS[name]().value(x, y).item() == pytest.approx(value, abs=1e-5)


def test_gradient_descent_goes_the_way_computed_by_hand():
    path = run_optimizer(ravine(), partial(SGD, lr=0.1), steps=3, start=(-5.0, -2.0))
    k = np.arange(4)
    np.testing.assert_allclose(path.points[:, 0], -5 * (1 - 0.1 * 0.2) ** k)
    np.testing.assert_allclose(path.points[:, 1], -2 * (1 - 0.1 * 4) ** k)
    np.testing.assert_allclose(
        path.losses, 0.1 * path.points[:, 0] ** 2 + 2 * path.points[:, 1] ** 2
    )


def test_momentum_goes_beyond_the_minimum_and_gradient_descent_does_not():
    sgd, momentum = (
        measure(ravine(), run_optimizer(ravine(), optimizer, steps=150), 150)
        for optimizer in (partial(SGD, lr=0.1), MOMENTUM)
    )
    assert sgd["overshoot"] == 0
    assert momentum["overshoot"] > 1
    # it is there before gradient descent, and does not stay
    assert momentum["steps_to_minimum"] < momentum["steps_settled"] < math.inf
    assert momentum["steps_to_minimum"] < sgd["steps_to_minimum"]


@pytest.mark.parametrize("function", [ravine(), quadratic(noise=0), quadratic(30.0, 0.0)])
def test_nesterovs_way_is_shorter_than_momentums(function):
    momentum, nesterov = (
        measure(function, run_optimizer(function, optimizer, steps=300), 300)
        for optimizer in (MOMENTUM, NESTEROV)
    )
    assert nesterov["distance"] < 0.9 * momentum["distance"]
    assert nesterov["overshoot"] <= momentum["overshoot"]


def test_adagrads_effective_step_fades_and_rmsprops_does_not():
    """The factor between gradient and step, in the presence of noise that does not fade."""

    def factors(optimizer) -> np.ndarray:
        factors = []

        class Watched(optimizer.func):
            def step(self, closure):
                theta = self.param_groups[0]["params"][0]
                before = theta.detach().clone()
                loss = super().step(closure)
                factors.append(((before - theta.detach()) / theta.grad).numpy())
                return loss

        run_optimizer(quadratic(10.0, 1.0), partial(Watched, **optimizer.keywords), steps=1000)
        return np.stack(factors)

    adagrad = factors(partial(textbook.Adagrad, lr=0.5))
    assert (np.diff(adagrad, axis=0) < 1e-12).all()
    # as 1 / sqrt(step): a hundred times the steps, a tenth of the factor
    assert adagrad[999, 1] / adagrad[9, 1] == pytest.approx(0.1, rel=0.5)
    rmsprop = factors(partial(textbook.RMSProp, lr=0.01))
    assert np.median(rmsprop[500:, 1]) > 0.5 * np.median(rmsprop[50:200, 1])


def test_gradient_descent_does_not_leave_the_saddle_and_others_do():
    def end(optimizer, **arguments):
        return measure(saddle(), run_optimizer(saddle(), optimizer, steps=120, **arguments), 120)

    sgd, adam = partial(SGD, lr=0.05), partial(ADAM, lr=0.05)
    held = end(sgd)
    assert held["steps_to_minimum"] == math.inf
    assert math.hypot(held["x"], held["y"]) < 0.01
    for other in (adam, partial(torch.optim.RMSprop, lr=0.05), partial(MOMENTUM, lr=0.05)):
        assert end(other)["steps_to_minimum"] < 120
    assert end(sgd, noise=0.1)["steps_to_minimum"] < math.inf
    # exactly on the ridge nobody has a gradient across it; noise helps all
    for optimizer in (sgd, adam):
        assert end(optimizer, start=(1.5, 0.0))["y"] == 0
        assert end(optimizer, start=(1.5, 0.0), noise=0.1)["steps_to_minimum"] < math.inf


def test_noise_is_the_same_for_all_optimizers_and_averages_out():
    first = run_optimizer(quadratic(), partial(SGD, lr=1.0), steps=400, seed=1)
    assert np.array_equal(
        first.points, run_optimizer(quadratic(), partial(SGD, lr=1.0), steps=400, seed=1).points
    )
    other = run_optimizer(quadratic(), partial(SGD, lr=1.0), steps=400, seed=2)
    assert not np.array_equal(first.points, other.points)
    # with lr 1 the coordinate of curvature 1 is minus the noise itself
    assert first.points[1:, 1].std() == pytest.approx(0.1, rel=0.15)
    a, b = (
        run_optimizer(quadratic(), partial(o, lr=0.1), steps=1, seed=3).points[1]
        for o in (SGD, SGD)
    )
    assert np.array_equal(a, b)


def test_a_way_that_diverges_ends_and_is_marked():
    path = run_optimizer(rosenbrock(), partial(SGD, lr=1.0), steps=50)
    row = measure(rosenbrock(), path, 50)
    assert row["diverged"]
    assert len(path.points) < 51
    assert np.isfinite(path.losses).all()
    assert row["steps_settled"] == math.inf


def test_the_best_rate_is_the_one_that_settles_first():
    path, lr = follow_best(ravine(), SGD, steps=100)
    rows = [
        measure(ravine(), run_optimizer(ravine(), partial(SGD, lr=rate), steps=100), 100)[
            "steps_settled"
        ]
        for rate in (0.1, 0.3162, 0.5623)
    ]
    assert measure(ravine(), path, 100)["steps_settled"] <= min(rows)
    assert 0.1 < lr < 0.6


def test_measures_of_a_way_are_those_by_hand():
    points = np.array([[-4.0, 0.0], [0.0, 0.0], [3.0, 4.0], [0.0, 0.01], [0.0, 0.0]])
    path = Trajectory("x", "x", points, np.zeros(5))
    row = measure(ravine(), path, 4)
    assert (row["steps_to_minimum"], row["steps_settled"]) == (1, 3)
    assert row["distance"] == pytest.approx(4 + 5 + math.hypot(3, 3.99) + 0.01)
    assert (row["straight"], row["overshoot"]) == (4, 3)
    away = measure(ravine(), path._replace(points=points[[0, 2]]), 1)
    assert (away["steps_to_minimum"], away["steps_settled"]) == (math.inf, math.inf)


def test_the_steps_of_adagrad_fade_as_the_formula_says():
    sgd = measure(ravine(), run_optimizer(ravine(), partial(SGD, lr=0.1), steps=50), 50)
    assert sgd["effective_step"] == pytest.approx(1)
    x, y = 5 * 0.02 * 0.98**49, 2 * 0.4 * 0.6**49
    assert sgd["last_to_first_step"] == pytest.approx(math.hypot(x, y) / math.hypot(0.1, 0.8))
    # on a slope of constant gradient AdaGrad's step k is 1 / sqrt(k) of its first
    slope = ravine()._replace(value=lambda x, y: x + 2 * y)
    adagrad = partial(textbook.Adagrad, lr=0.5)
    row = measure(slope, run_optimizer(slope, adagrad, steps=100), 100)
    assert row["effective_step"] == pytest.approx(0.1, rel=1e-3)
    assert row["last_to_first_step"] == pytest.approx(0.1, rel=1e-3)


def test_the_plot_holds_the_paths_but_not_a_diverging_one():
    assert contours.widen_limits(np.array([-1.0, 1.0]), (-2.0, 2.0)) == (-2.0, 2.0)
    low, high = contours.widen_limits(np.array([-3.0, 1.0]), (-2.0, 2.0))
    assert -6 < low < -3
    assert high == 2
    assert contours.widen_limits(np.array([-1e9, 1e9]), (-2.0, 2.0)) == (-6.0, 6.0)


def test_who_arrives_at_once_does_not_squeeze_the_others_losses():
    function = rosenbrock()
    slow = run_optimizer(function, partial(SGD, lr=0.003), steps=50)
    fast = slow._replace(losses=np.array([slow.losses[0], *[1e-30] * 50]), name="lbfgs")
    for paths in ([slow], [slow, fast]):
        axes = contours.still(function, paths).axes[1]
        low, high = axes.get_ylim()
        assert slow.losses.min() / 30 < low < slow.losses.min() < slow.losses.max() < high
        assert axes.get_xlim()[0] < 0  # a drop in the first step is not on the axis
        for line in axes.lines:
            assert (np.asarray(line.get_ydata()) > low).all()
        assert ("cut off at" in axes.get_ylabel()) == (len(paths) == 2)
    alone = contours.still(function, [fast]).axes[1]
    assert alone.get_ylim()[0] == pytest.approx(contours.LEAST_LOSS / 2)


def test_who_nowhere_arrives_is_told_about_learning_rates(tmp_path, capsys):
    words = ["function=saddle", f"out={tmp_path}", "format=png", "steps=20"]
    assert trajectories.main([*words, "optimizer=sgd,adam", "optimizer.lr=0.001"]) == 0
    assert "leave out lr" in capsys.readouterr().err
    assert trajectories.main([*words, "optimizer=sgd,rmsprop", "rmsprop.lr=0.1"]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_rate_each_takes_its_best_and_the_columns_are_explained(tmp_path, capsys):
    words = ["function=ravine", f"out={tmp_path}", "format=png"]
    assert trajectories.main(words) == 0
    out = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "trajectories.csv")
    assert table["optimizer"].str.match(r"(sgd|momentum|adam) lr=").all()
    assert np.isfinite(table["steps_settled"]).all()
    assert max(map(len, out.split(str(tmp_path))[0].splitlines())) < 80
    for head, _ in trajectories.COLUMNS.values():
        assert len(re.findall(rf"\b{head}\b", out)) >= 2
    _, best = trajectories.run(trajectories.parse([*words, "optimizer.lr=best"]))
    pd.testing.assert_frame_equal(best, table, check_dtype=False)


@pytest.mark.slow
def test_momentum_gains_in_a_steeper_valley_with_each_at_its_best_rate(tmp_path, capsys):
    words = ["function=ravine", "optimizer=sgd,momentum", f"out={tmp_path}", "format=png"]
    assert trajectories.main(words) == 0
    (steeper,) = re.findall(r"function\.condition=\d+", capsys.readouterr().out)
    assert trajectories.main([*words, steeper]) == 0
    assert "function.condition" not in capsys.readouterr().out
    sgd, momentum = pd.read_csv(tmp_path / "trajectories.csv")["steps_settled"]
    assert momentum < 100 < 200 < sgd


def test_the_committed_scenes_are_as_expected():
    """Their tables are of this code: the ravine again, against what is committed."""
    folder = Path(__file__).resolve().parents[2] / "results" / "trajectories"
    text = (folder / "README.md").read_text("utf-8")
    assert text.count("\n- Confirmed: ") >= 8
    assert "Not confirmed" not in text
    command = re.search(r"optbench trajectories (function=ravine .*optimizer.lr=0\.1 .*)", text)
    _, table = trajectories.run(trajectories.parse(command[1].split()))
    committed = pd.read_csv(folder / "ravine.csv")
    pd.testing.assert_frame_equal(table, committed, check_dtype=False, rtol=1e-6, atol=1e-12)
    assert all(path.stat().st_size < 400_000 for path in folder.glob("*.gif"))


def test_the_command_writes_figures_and_tables(tmp_path, capsys):
    words = [
        "function=rosenbrock",
        "optimizer=sgd,textbook/adam,lbfgs",
        "steps=12",
        "sgd.lr=1e-3,2e-3",
    ]
    assert trajectories.main([*words, "textbook/adam.lr=best", f"out={tmp_path}"]) == 0
    table = pd.read_csv(tmp_path / "trajectories.csv")
    assert table["optimizer"].str.split(" ").str[0].tolist() == [
        "sgd",
        "sgd",
        "textbook_adam",
        "lbfgs",
    ]
    assert table["optimizer"][0] == "sgd lr=0.001"
    assert table["steps_to_minimum"][0] == math.inf
    assert table["steps_to_minimum"][3] < 12
    ways = pd.read_csv(tmp_path / "paths.csv")
    assert ways.groupby("optimizer").size().eq(13).all()
    for name in ("trajectories.png", "trajectories.pdf"):
        assert (tmp_path / name).stat().st_size > 10_000
    with Image.open(tmp_path / "trajectories.gif") as gif:
        assert gif.n_frames >= 13
        assert gif.info["loop"] == 0
    assert "steps to minimum" in capsys.readouterr().out


@everywhere
def test_every_function_can_be_drawn(function):
    paths = [run_optimizer(function, partial(o, lr=1e-3), steps=3) for o in (SGD, ADAM)]
    figure = contours.still(function, paths)
    figure.canvas.draw()


def test_an_own_optimizer_is_found(tmp_path, monkeypatch):
    (tmp_path / "optimizer").mkdir()
    text = "name: mine\n_target_: torch.optim.SGD\n_partial_: true\nlr: 0.01\n"
    (tmp_path / "optimizer" / "mine.yaml").write_text(text)
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path / "out"))
    words = ["function=quadratic", "optimizer=mine", "format=png", "mine.lr=0.01"]
    words += ["steps=2", "function.condition=3", "noise=0"]
    for given in ([f"config_dir={tmp_path}"], ["--config-dir", str(tmp_path)]):
        assert trajectories.main([*words, *given]) == 0
    table = pd.read_csv(tmp_path / "out/trajectories/quadratic/trajectories.csv")
    assert table["x"][0] == pytest.approx(-8 * (1 - 0.01 / 3) ** 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["function=rosenbrok"], "Did you mean rosenbrock"),
        (["function=beale", "step=3"], "Did you mean steps"),
        (["function=beale", "steps=0"], "at least 1"),
        (["function=beale", "noise=x"], "noise must be a number"),
        (["function=beale", "start=1"], "two numbers"),
        (["function=beale", "format=mp4"], "mp4"),
        (["function=beale", "function.condition=3"], "beale takes"),
        (["function=beale", "optimizer=adma"], "there is no optimizer=adma"),
        (["function=beale", "optimizer=sgd", "sgd.momentumm=1"], "momentumm"),
        (["function=beale", "optimizer=sgd", "sgd.lr=[1,2"], "a setting of sgd"),
        (["function=beale", "optimizer=lbfgs", "lbfgs.lr=-1"], "refused"),
        (["adam"], r"KEY=VALUE\. Did you mean optimizer=adam\?"),
        (["functon=ravine"], r"there is no key functon\. Did you mean function=ravine\?"),
        (["ravine"], r"Did you mean function=ravine\?"),
        (["ravin"], r"Did you mean function=ravine\?"),
        (["--function=ravine"], r"Did you mean function=ravine\?"),
        (["--steps", "3"], r"Did you mean steps=VALUE\?"),
        (["optimizer=adam"], r"which function\? Give function=NAME"),
        (["function=ravine", "lr=0.1"], r"Did you mean optimizer\.lr=0\.1 \(all optimizers\), or"),
        (["function=ravine", "learning_rate=0.1"], r"or sgd\.lr=0\.1 \(one\)\?"),
        (["function=quadratic", "condition=3"], r"Did you mean function\.condition=3\?"),
        (["function=beale", "optimizer=sgd", "adam.lr=1"], "Name adam in optimizer= too"),
    ],
)
def test_mistakes_are_named(words, message, capsys):
    assert sub_command("trajectories")([*words, "out=/nonexistent"]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_help_names_the_functions(capsys):
    assert trajectories.main(["--help"]) == 0
    assert all(name in capsys.readouterr().out for name in ["saddle"])


@pytest.mark.parametrize("condition", [-1.0, 0.5, math.inf, math.nan])
def test_a_condition_number_is_at_least_one(condition):
    with pytest.raises(UserError, match=r"function\.condition must be"):
        quadratic(condition)
    with pytest.raises(UserError, match=r"function\.condition must be"):
        ravine(condition)


def test_a_diverging_path_is_drawn_until_it_leaves_and_noise_is_named():
    function = quadratic()
    path = run_optimizer(function, partial(SGD, lr=3.0), steps=60)
    figure = contours.still(function, [path._replace(label="sgd", name="sgd")])
    plane = figure.axes[0]
    assert plane.get_title(loc="left") == "Quadratic, gradients with noise 0.1"
    (line,) = (
        line for line in plane.lines if len(line.get_xdata()) > 1 and line.get_linestyle() != "None"
    )
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    (left, right), (low, high) = plane.get_xlim(), plane.get_ylim()
    inside = (left <= x) & (x <= right) & (low <= y) & (y <= high)
    assert inside[:-1].all()
    assert not inside[-1]


def test_a_path_that_ends_far_up_has_diverged_though_it_is_finite():
    path = run_optimizer(saddle(), partial(SGD, lr=5.0), steps=5, start=(1.5, 1.0))
    assert math.isfinite(path.losses[-1])
    assert path.losses[-1] > 1e6
    assert measure(saddle(), path, steps=5)["diverged"]
    near = run_optimizer(saddle(), partial(SGD, lr=0.1), steps=5)
    assert not measure(saddle(), near, steps=5)["diverged"]
