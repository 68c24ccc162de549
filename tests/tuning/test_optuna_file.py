"""The trials as an Optuna study, read back by Optuna."""

from math import inf

import pytest

from optbench.tuning import optuna_file
from optbench.tuning.contenders import DEFAULT, RUNG, Contender, Trial

optuna = pytest.importorskip("optuna")

SPACE = {
    "lr": {"low": 1e-4, "high": 1.0, "scale": "log"},
    "betas": [{"low": 0.5, "high": 0.99, "scale": "one_minus_log"}] * 2,
    "steps": {"low": 1, "high": 9, "scale": "linear", "int": True},
    "nesterov": {"values": [True, False]},
    "decay": {"low": 1e-6, "high": 1.0, "scale": "log"},  # its default 0 lies outside
}
POINT = {"lr": 0.01, "betas": [0.9, 0.95], "steps": 3, "nesterov": False}


@pytest.mark.parametrize(("metric", "sign"), [("val_loss", 1), ("val_accuracy", -1)])
def test_optuna_reads_what_a_study_tried(tmp_path, metric, sign):
    entries = [
        Contender([f"optimizer={name}", "epochs=1"], name, SPACE, repeat=repeat)
        for name in ("sgd", "adam")
        for repeat in range(2)
    ]
    for entry in entries:
        entry.trials += [
            Trial({"lr": 0.001, "decay": 0.0}, sign * 0.5, "completed", ("a",), kind=DEFAULT),
            Trial(POINT, sign * 0.25, "completed", ("b",)),
            Trial(POINT, inf, "diverged", ("c",)),
            Trial(POINT, sign * 0.75, "completed", ("d",), kind=RUNG, length=1),
        ]
    for _ in range(2):  # a second call replaces the file
        optuna_file.write(tmp_path, entries, {"metric": metric})
    storage = f"sqlite:///{tmp_path / optuna_file.OPTUNA_FILE}"
    names = optuna.get_all_study_names(storage)
    assert sorted(names) == ["adam search 1", "adam search 2", "sgd search 1", "sgd search 2"]
    study = optuna.load_study(study_name=names[0], storage=storage)
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE",
        "COMPLETE",
        "FAIL",
        "PRUNED",
    ]
    assert study.best_value == 0.25 if metric == "val_loss" else study.best_value == -0.5 * sign
    assert study.trials[1].params == {
        "optimizer.lr": 0.01, "optimizer.betas[0]": 0.9, "optimizer.betas[1]": 0.95,
        "optimizer.steps": 3, "optimizer.nesterov": False,
    }  # fmt: skip
    assert study.trials[0].params == {"optimizer.lr": 0.001}
    assert study.trials[1].user_attrs["runs"] == ["b"]
