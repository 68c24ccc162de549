"""`hydra/launcher=ray` on a cluster of two nodes on this machine, one of which dies."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_commands import PATIENTLY, TINY, finish, tables, until

pytestmark = pytest.mark.slow
RAY = ["hydra/launcher=ray", "hydra.launcher.jobs=2"]


def ray_command(*words: str) -> subprocess.CompletedProcess:
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "ray.scripts.scripts"]
    return subprocess.run([*command, *words], capture_output=True, text=True, env=env)


def raylets() -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == "raylet":
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def nodes(monkeypatch) -> Iterator[tuple[str, int]]:
    """Two nodes of one CPU each: the address of the cluster, and the process of the second."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or the nodes would need a common token
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = raylets()
    common = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000"]
    head = ["start", "--head", f"--port={port}", "--include-dashboard=false"]
    done = ray_command(*head, "--node-ip-address=127.0.0.1", *common)
    assert done.returncode == 0, done.stdout + done.stderr
    before = raylets()
    done = ray_command("start", f"--address=127.0.0.1:{port}", *common)
    assert done.returncode == 0, done.stdout + done.stderr
    (second,) = raylets() - before
    yield f"127.0.0.1:{port}", second
    # `ray stop` would end the clusters of others as well
    for pid in raylets() - own:
        os.kill(pid, signal.SIGTERM)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"--gcs_server_port={port}" in path.read_text():
                os.kill(int(path.parent.name), signal.SIGTERM)
        except OSError:
            continue


def test_a_tuned_study_is_done_by_two_nodes_as_by_one_machine(nodes, command, place):
    words = [
        "-m", *TINY, "hydra/sweeper=tuned", "optimizer=sgd,momentum,adam", "tuning.trials=4",
        "tuning.repeats=3", "seeds=2",
    ]  # fmt: skip
    finish(command(*words, "results_dir=.", "name=alone", "hydra.launcher.workers=1"))
    words += ["results_dir=.", "name=x", *RAY, f"hydra.launcher.address='{nodes[0]}'"]
    out, _ = finish(command(*words))
    assert "2 tasks on a Ray cluster of 2 nodes" in out
    assert tables(place / "x") == tables(place / "alone")


def test_a_node_that_dies_takes_no_run_with_it(nodes, command, place):
    (place / "stuck").touch()
    words = ["-m", *TINY, *PATIENTLY, "epochs=4", "seed=0,1,2,3", "results_dir=.", "name=x", *RAY]
    process = command(*words, f"hydra.launcher.address='{nodes[0]}'")
    until((place / "stepping").exists, process)
    os.kill(nodes[1], signal.SIGKILL)
    (place / "stuck").unlink()
    finish(process)
    assert len(tables(place / "x")) == 4


def test_this_machine_alone_is_a_cluster_as_well(command, place):
    pytest.importorskip("ray")
    words = ["-m", *TINY, "seed=0,1", "results_dir=.", "name=x", *RAY, "hydra.launcher.jobs=1"]
    out, _ = finish(command(*words))
    assert "1 task on a Ray cluster of 1 node" in out
    assert len(tables(place / "x")) == 2
