"""The part of the benchmark in which optbench and its peers take turns at one job."""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from scripts import ROOT
from scripts.benchmark.job import kind_of
from scripts.benchmark.peers import PEERS, missing
from scripts.benchmark.tables import TITLES, draw, models_table, peers_table

MAX_ANSWER_SECONDS = 300  # JAX's convolutions in a scan took twice as long for an epoch
# a peer below does not learn, so that its time says nothing; of a GPT: of the next characters
MIN_ACCURACY = {"gpt": 0.2, "lstm": 0.6, "tabular": 0.6}
USUAL_MIN_ACCURACY = 0.8


class Worker:
    """A peer in a separate process. `ask` waits for the answer."""

    def __init__(self, name: str) -> None:
        environment = os.environ | dict(PEERS[name].env)
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmark.peers", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, **job: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        late = threading.Timer(MAX_ANSWER_SECONDS, self.process.kill)
        late.start()
        try:
            print(json.dumps(job), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        late.cancel()
        ended = f"the process ended, or was ended after {MAX_ANSWER_SECONDS} s"
        return dict(json.loads(line)) if line else {"error": ended}

    def close(self) -> None:
        """End the peer's process."""
        self.process.kill()
        self.process.wait()


def rounds(
    asked: argparse.Namespace,
    data: Mapping[str, Path],
    device: str,
    models: list[str],
    names: list[str],
) -> tuple[pd.DataFrame, list[str]]:
    """Return a row per counted epoch of each peer, and notes on missing peers.

    data: the file of each kind of model that has data.
    """
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    workers: dict[str, Worker] = {}
    try:
        for place, model in enumerate(models):
            if kind_of(model) not in data:
                notes[f"{model}: left out, its data are not in OPTBENCH_DATA."] = None
                continue
            turns, counted = (
                each[min(place, len(each) - 1)] for each in (asked.rounds, asked.epochs)
            )
            for turn in range(turns):
                for name in names:
                    if turn % 2:  # alternate the order, so that neighbours change
                        name = names[len(names) - 1 - names.index(name)]
                    peer = PEERS[name]
                    if lacking := missing(peer):
                        notes[f"{TITLES[name]}: left out, needs {', '.join(lacking)}."] = None
                        continue
                    if device == "cuda" and not peer.gpu:
                        continue
                    fresh = name not in workers
                    start = time.perf_counter()
                    worker = Worker(name) if fresh else workers[name]
                    workers[name] = worker
                    job = {"data": str(data[kind_of(model)]), "model": model, "device": device}
                    answer = worker.ask(**job, epochs=1 + counted, examples=asked.examples)
                    wall = time.perf_counter() - start
                    if "error" in answer:
                        notes[f"{TITLES[name]}, {model}: {answer['error'].splitlines()[0]}"] = None
                        continue
                    seconds, accuracy = answer["seconds"], answer["accuracy"]
                    print(f"{device} {model} round {turn + 1} {name}: {min(seconds[1:]):.3f} s, "
                          f"accuracy {accuracy:.3f}", file=sys.stderr, flush=True)  # fmt: skip
                    if accuracy < MIN_ACCURACY.get(kind_of(model), USUAL_MIN_ACCURACY):
                        notes[f"{TITLES[name]}, {model}: test accuracy {accuracy:.3f}!"] = None
                    startup = wall - len(seconds) * min(seconds) if fresh else None
                    common = {"device": device, "model": model, "peer": name, "round": turn + 1}
                    rows += [
                        common | {"seconds": s, "accuracy": accuracy, "startup": startup}
                        for s in seconds[1:]
                    ]
    finally:
        for worker in workers.values():
            worker.close()
    return pd.DataFrame(rows), list(notes)


def epochs(asked: argparse.Namespace, data: Mapping[str, Path], device: str) -> list[str]:
    """Return tables of seconds per epoch, one per model, and draw a figure."""
    names = [name for name in PEERS if name in asked.peers.split(",")]
    table, notes = rounds(asked, data, device, asked.models.split(","), names)
    if table.empty:
        return [*notes, ""]
    table.to_csv(asked.out / f"epochs_{device}.csv", index=False)
    lines: list[str] = ["Best seconds of an epoch:", "", *models_table(table), ""]
    for model, part in table.groupby("model", sort=False):
        lines += [f"Model {model}", "", *peers_table(part), ""]
    draw(table, asked.out / f"epochs_{device}")
    return [*lines, f"![seconds per epoch](epochs_{device}.png)", "", *notes, ""]
