"""What is missing or wrong for a launcher of clusters is said in words."""

import socket
import sys

import pytest
from cluster_commands import TINY
from in_process import call

from optbench.common.errors import UserError
from optbench.config.explain import missing_choice
from optbench.sweeps.clusters import options, ray
from optbench.sweeps.clusters import slurm as module

SLURM = ["hydra/launcher=slurm", "hydra.launcher.jobs=2", "hydra.launcher.time=20m"]
RAY = ["hydra/launcher=ray", "hydra.launcher.jobs=2"]


@pytest.mark.parametrize(
    "missing",
    ["program", *(pytest.param(one, marks=pytest.mark.slow) for one in ("package", "controller"))],
)
def test_a_missing_part_of_slurm_gets_words(monkeypatch, capfd, tmp_path, missing):
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "none.conf"))
    if missing == "package":
        monkeypatch.setitem(sys.modules, "submitit", None)
        part = "pip install 'optbench[slurm]'"
    elif missing == "program":
        pytest.importorskip("submitit")
        monkeypatch.setattr(module.shutil, "which", lambda _: None)
        part = "needs Slurm's sbatch and srun"
    else:
        pytest.importorskip("submitit")
        if module.shutil.which("squeue") is None:
            pytest.skip("Slurm is not installed: scripts/slurm install (needs root)")
        part = "controller does not answer"
    assert call(monkeypatch, "-m", *TINY, "name=x", *SLURM) == 1
    err = capfd.readouterr().err
    assert part in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("jobs", 0, "whole number of at least 1"),
        ("cpus", "two", "whole number"),
        ("time", "soon", "must be a time such as 3h"),
        ("partition", ["a"], "must be a text or null"),
        ("gpus", -1, "whole number of at least 0"),
    ],
)
def test_bad_options_of_slurm_get_words(key, value, part):
    given = {
        "jobs": 2, "time": "3h", "cpus": 1, "gpus": None, "mem": None, "partition": None,
        "account": None, "constraint": None, "setup": None, "extra": {}, "requeues": 1,
        "wait": True,
    }  # fmt: skip
    assert options.slurm(given)["time"] == 3 * 3600
    with pytest.raises(UserError, match=part):
        options.slurm(given | {key: value})


def test_a_missing_ray_gets_words(monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("OPTBENCH_RESULTS", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    assert call(monkeypatch, "-m", *TINY, "name=x", *RAY) == 1
    assert "pip install 'optbench[ray]'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("jobs", 0, "whole number of at least 1"),
        ("cpus", 0.5, "whole number"),
        ("gpus", -1, "a number of GPUs, or a part"),
        ("retries", "many", "whole number"),
    ],
)
def test_bad_options_of_ray_get_words(key, value, part):
    given = {"address": None, "jobs": None, "cpus": 1, "gpus": 0.5, "retries": 3}
    assert options.ray(given) == given
    with pytest.raises(UserError, match=part):
        options.ray(given | {key: value})


def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(OSError, match="refused"):
            ray.check_answers(address)
    monkeypatch.setattr(ray, "CURRENT", tmp_path / "ray_current_cluster")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.check_answers("auto")  # Ray knows of no cluster, and says so itself
    ray.CURRENT.write_text(f"127.0.0.1:{port}\n")  # left by a cluster that has died
    with pytest.raises(OSError, match="refused"):
        ray.check_answers("auto")
    ray.check_answers(None)  # this machine alone, whatever it remembers
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        ray.check_answers(f"127.0.0.1:{used.getsockname()[1]}")


@pytest.mark.parametrize("name", ["joblib", "submitit_slurm"])
def test_a_launcher_of_others_that_is_missing_names_its_package(name):
    said = missing_choice("hydra/launcher", name)
    package = f"hydra-{name.partition('_')[0]}-launcher"
    assert (
        f"there is no hydra/launcher={name}: it comes with a package, pip install {package}" in said
    )
