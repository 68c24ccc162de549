"""The same training job in other frameworks, and a worker that serves them.

A job trains on `train_x (n, 1, height, width)` and `train_y` in float32 with Adam (lr 0.001), and
evaluates on the test set after each epoch. `python -m scripts.benchmark.peers PEER` reads jobs
from stdin, one JSON object a line, and answers each with a line. The process stays alive, so that
rounds alternate.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from scripts import ROOT
from scripts.benchmark.job import Answer, Job
from scripts.benchmark.peers_other import jax_scan, keras, scikit_learn
from scripts.benchmark.peers_torch import (
    bound,
    lightning,
    optbench,
    skorch,
    tensor_loader,
    tensors_and_slices,
    tutorial,
)  # fmt: skip


class Peer(NamedTuple):
    """A peer: function, required libraries and environment; its title is in `tables.TITLES`."""

    run: Callable[[Job], Answer]
    needs: tuple[str, ...] = ("torch",)
    env: Mapping[str, str] = MappingProxyType({})
    gpu: bool = True  # runs on CUDA when asked


# As set by `scripts/run` and `python -m optbench`.
SETUP = ROOT / "scripts" / "setup"
ALLOCATOR = subprocess.run(
    ["bash", "-c", f"source '{SETUP}'; allocator"], capture_output=True, text=True
).stdout.strip()
OURS = {"GOMP_SPINCOUNT": "6000"} | ({"LD_PRELOAD": ALLOCATOR} if ALLOCATOR else {})
PEERS = {
    "optbench": Peer(optbench, env=OURS),
    "tutorial": Peer(tutorial),
    "loader": Peer(tensor_loader),
    "slices_mkl": Peer(partial(tensors_and_slices, onednn=False)),
    "slices": Peer(partial(tensors_and_slices, onednn=True)),
    "lightning": Peer(lightning, ("lightning",)),
    "skorch": Peer(skorch, ("skorch",)),
    "keras_torch": Peer(keras, ("keras",), {"KERAS_BACKEND": "torch"}),
    "keras_jax": Peer(keras, ("keras", "jax"), {"KERAS_BACKEND": "jax"}, False),
    "jax": Peer(jax_scan, ("jax", "optax"), {}, False),
    "sklearn": Peer(scikit_learn, ("sklearn",), {}, False),
    "bound": Peer(bound, env=OURS),
    "floor": Peer(partial(bound, whole=True), env=OURS),
}


def missing(peer: Peer) -> list[str]:
    """Return the libraries that a peer needs and that are not installed."""
    return [name for name in peer.needs if importlib.util.find_spec(name) is None]


def serve(peer: Peer, jobs: Iterator[str]) -> None:
    """Answer each job. Only answers go to stdout, where no library may print."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in jobs:
        asked = json.loads(line)
        arrays = np.load(asked.pop("data"))
        names = ("train_x", "train_y", "test_x", "test_y")
        examples = asked.pop("examples", None)
        given = {n: arrays[n][:examples] if n[:5] == "train" else arrays[n] for n in names}
        start = time.perf_counter()
        try:
            seconds, accuracy = peer.run(Job(**given, **asked))
            answer: dict[str, Any] = {"seconds": seconds, "accuracy": accuracy}
            answer["total"] = time.perf_counter() - start
        except Exception as error:  # reported as this peer's result, so that the others go on
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(PEERS[sys.argv[1]], iter(sys.stdin.readline, ""))
