"""Files from others run no code, write nowhere else, and no connection is opened."""

import csv
import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from made_runs import make_run, sweep
from matplotlib.figure import Figure

from optbench.analysis.table import load_runs
from optbench.commands import plot
from optbench.common.csv_export import to_csv
from optbench.common.errors import UserError
from optbench.common.files import replace_text
from optbench.datasets.files import with_https_urls
from optbench.datasets.torchvision_shim import import_torchvision
from optbench.figures.save import save
from optbench.formats.run import read_record
from optbench.report import page
from optbench.runs import checkpoints
from optbench.runs import folder as runs
from scripts.results import fetch_data

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["data.subset=60", "model.hidden=[4]", "epochs=1", "num_threads=1", "quiet=true"]
OPTBENCH = [sys.executable, "-m", "optbench"]
FORMULA = "=cmd|' /C calc'!A0"


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Harmful()))


def saved_by_torch(path: Path) -> None:
    torch.save({"format": checkpoints.CHECKPOINT_FORMAT, "training": Harmful()}, path)


def archive_of_others(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../harmed", "x")
        archive.writestr("archive/data.pkl", pickle.dumps(Harmful()))
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("make", [pickled, saved_by_torch, archive_of_others])
def test_a_malicious_checkpoint_does_nothing(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / checkpoints.CHECKPOINT_FILE)
    before = files_below(tmp_path.parent)
    with pytest.raises(Exception):  # noqa: B017, PT011  # of many kinds; `find` catches them
        checkpoints.load(tmp_path / checkpoints.CHECKPOINT_FILE)
    assert files_below(tmp_path.parent) == before


def test_formulas_in_names_are_text_in_exported_tables(tmp_path):
    for name in (FORMULA, "+1+1", "@SUM(1)", "-2+3", "\tx"):
        sweep(tmp_path / "runs", (name,), 2)
    plot.draw_all([tmp_path / "runs"], tmp_path / "out", plot.Options(formats=["svg"]))
    found = list((tmp_path / "out").glob("*.csv"))
    assert found
    for path in found:
        with path.open(newline="") as file:
            for cell in (cell for row in csv.reader(file) for cell in row):
                assert not cell.startswith(("=", "+", "@", "\t")), (path, cell)
    assert f"'{FORMULA}" in (tmp_path / "out" / "summary.csv").read_text()


def test_numbers_in_exported_tables_stay_numbers():
    table = pd.DataFrame({"a": [-1.5, 2.0], "b": ["-1", "-x"], "c": [None, "=1"], "=d": [-3, 4]})
    assert to_csv(table) == "a,b,c,'=d\n-1.5,-1,,-3\n2.0,'-x,'=1,4\n"


def harmful_run(folder: Path, seed: int = 0) -> Path:
    """A run whose record names other folders wherever a text may stand, and code to be run."""
    run = make_run(folder, "../../x", seed)
    record = json.loads((run / "run.json").read_text())
    target = {"_target_": "os.system", "command": "touch harmed", "_args_": ["touch harmed"]}
    record["config"] |= {
        "name": "../../x",
        "results_dir": "../../x",
        "optimizer": {"name": "../../x", "lr": 0.1} | target,
        "model": {"name": "../../x", "hidden": []} | target,
        "phase": "../../x",
    }
    record |= {"run_id": f"../../x{seed}", "device": "../../x"}
    (run / "run.json").write_text(json.dumps(record))
    text = (run / "epochs.csv").read_text()
    (run / "epochs.csv").write_text(text.replace("total_seconds", "total_seconds,../../x", 1))
    lines = (run / "epochs.csv").read_text().splitlines()
    body = [f"{line},1" for line in lines[1:]]
    (run / "epochs.csv").write_text("\n".join([lines[0], *body]) + "\n")
    return run


def test_records_with_paths_and_targets_write_nothing_elsewhere(tmp_path, monkeypatch):
    inner = tmp_path / "a" / "b" / "runs"
    for seed in range(2):
        harmful_run(inner / f"r{seed}", seed)
    here = tmp_path / "a" / "b"
    monkeypatch.chdir(here)
    before = files_below(tmp_path)
    (inner / "figure.json").write_text(json.dumps({"y": "../../x", "x": "epoch"}))
    assert load_runs(inner)["run"].nunique() == 2
    plot.draw_all([inner], inner, plot.Options(formats=["svg"]))
    page.write([inner], inner / "report.html")
    new = files_below(tmp_path) - before
    assert new
    assert all(name.startswith("a/b/runs/") for name in new), new
    assert "harmed" not in " ".join(new)


def test_a_copied_run_stays_in_its_group(tmp_path):
    """A run that is known from elsewhere is copied under its folder's name, not its record's."""
    from optbench.runs.finished import copy_run

    run = harmful_run(tmp_path / "a" / "b" / "runs" / "r0")
    copy = copy_run(run, tmp_path / "a" / "b" / "c", {"name": "../../x"})
    assert copy == tmp_path / "a" / "b" / "c" / "r0"


@pytest.mark.parametrize(
    "text",
    [
        "name: bad\n_target_: !!python/object/apply:os.system ['touch harmed']\n",
        "name: !!python/name:os.system\n",
        "!!python/object/new:os.system ['touch harmed']\n",
        "name: [unclosed\n",
        "\t- x",
        "name: \x00",
        "- a\n- b\n",
        "just text",
        "",
        "a: &a [*a]\n",
    ],
)
@pytest.mark.parametrize("mode", [[], pytest.param(["-m"], marks=pytest.mark.slow)])
def test_yaml_tags_and_torn_yaml_are_refused_in_words(tmp_path, text, mode):
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "bad.yaml").write_text(text)
    done = subprocess.run(
        [*OPTBENCH, "--config-dir", "mine", *mode, "optimizer=bad", *QUICK],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=os.environ | {"OPTBENCH_RESULTS": str(tmp_path / "results")},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert not (tmp_path / "harmed").exists()


WATCH = """
import os, sys

def hook(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        if isinstance(arguments[1], (str, bytes)):
            return  # a socket of this machine's own: how processes talk to each other
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname"):
        return
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{event} {arguments}\\n")

sys.addaudithook(hook)
"""


def test_no_connection_is_opened(tmp_path):
    """A sweep in worker processes, its figures and its report: only a download may connect."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    watched = tmp_path / "watched"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), str(ROOT)]),
        "WATCHED": str(watched),
        "OPTBENCH_RESULTS": str(tmp_path / "results"),
        "OPTBENCH_DATA": str(tmp_path / "data"),
    }

    def call(*words: str) -> int:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stderr
        return done.returncode

    words = ["hydra/launcher=workers", "hydra.launcher.workers=2", "optimizer=sgd,adam"]
    assert call("optbench", "-m", "name=s", *words, *QUICK) == 0
    assert call("optbench", "report", str(tmp_path / "results" / "s")) == 0
    assert not watched.exists(), watched.read_text()
    # the watch sees what a download does
    assert call("optbench", "dataset=kmnist", "quiet=true") == 1
    assert "codh.rois.ac.jp" in watched.read_text()


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST", "EMNIST", "CIFAR10", "SVHN"])
def test_downloads_are_by_https_with_checksums(name):
    cls = with_https_urls(getattr(import_torchvision().datasets, name))
    assert cls.__name__ == name
    if name == "SVHN":
        urls = [url for url, *_ in cls.split_list.values()]
        sums = [md5 for *_, md5 in cls.split_list.values()]
    elif name.startswith("CIFAR"):
        urls, sums = [cls.url], [cls.tgz_md5]
    elif name == "EMNIST":
        urls, sums = [cls.url], [cls.md5]
    else:
        urls, sums = cls.mirrors, [md5 for _, md5 in cls.resources]
    assert urls
    assert all(url.startswith("https://") for url in urls)
    assert all(len(md5) == 32 for md5 in sums)


def evil_tar(members: dict[str, bytes]) -> bytes:
    """A tarball with these files, a link out of it and a device."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("package/t10k-images-idx3-ubyte")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


def test_members_that_lead_out_of_an_archive_stay_inside(tmp_path, monkeypatch):
    """scripts/fetch-data takes files by their base names, and neither links nor devices."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    name = fetch_data.FILES[0]
    members = {f"../../{name}": b"1", f"/tmp/../{name}": b"2", "../../other": b"3"}
    (folder / "x.tgz").write_bytes(evil_tar(members))
    monkeypatch.setattr(fetch_data, "run", lambda *arguments: None)
    fetch_data.unpack_npm(folder)
    assert files_below(tmp_path) == {"a", "a/b", "a/b/c", "a/b/c/x.tgz", f"a/b/c/{name}"}


def test_torchvision_unpacks_nothing_outside(tmp_path):
    """What downloads lean on; a wrong MD5 is refused before it comes to this."""
    utils = import_torchvision().datasets.utils
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "x.tar.gz").write_bytes(evil_tar({"../../out": b"x", "in": b"y"}))
    with pytest.raises((tarfile.TarError, OSError)):
        utils.extract_archive(str(inner / "x.tar.gz"), str(inner / "to"))
    with zipfile.ZipFile(inner / "x.zip", "w") as archive:
        archive.writestr("../../out", "x")
    utils.extract_archive(str(inner / "x.zip"), str(inner / "to"))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "a" / "out").exists()


def test_an_archive_in_place_is_checked_before_it_is_unpacked(tmp_path):
    from optbench.datasets import loaders

    (tmp_path / "cifar-10-python.tar.gz").write_bytes(evil_tar({"../../out": b"x"}))
    with pytest.raises(UserError, match="MD5"):
        loaders.cifar10(tmp_path, download=False)
    assert files_below(tmp_path) == {"cifar-10-python.tar.gz"}


def test_no_module_unpickles_or_evaluates():
    """Nothing but tensors and plain values is read from files: no pickle, no eval, no YAML tag."""
    for path in sorted((ROOT / "optbench").rglob("*.py")):
        text = path.read_text("utf-8")
        assert not re.search(
            r"(?<![\w.])(?<!def )(eval|exec)\(|pickle\.load\(|yaml\.load\(", text
        ), path
        assert not re.search(r"torch\.load\((?![^)]*weights_only=True)", text), path
        assert "instantiate(" not in text or path.name == "trust.py"


def test_a_checkpoint_that_names_other_files_touches_none(tmp_path):
    run = runs.RunFolder(
        tmp_path,
        "run",
        {
            "run_id": "0",
            "problem_hash": "0",
            "name": "sgd",
            "seed": 0,
            "config": {},
            "problem": {},
        },
    )
    outside = tmp_path / "outside.csv"
    outside.write_text("a\nb\nc\n")
    digest = hashlib.sha256(b"a\nb\n").hexdigest()
    state = {"last": {}, "best": {}, "rows": {"../outside": 1}, "sha256": {"../outside": digest}}
    with pytest.raises(ValueError, match="checkpoint"):
        runs.RunFolder.reopen(run.path, state)
    assert outside.read_text() == "a\nb\nc\n"
    assert (run.path / "epochs.csv").exists()


def test_links_in_a_folder_are_replaced_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("summary.csv", "summary.csv.tmp", "figure.png"):
        (folder / name).symlink_to(victim)
    replace_text(folder / "summary.csv", "table")
    save(Figure(), folder, "figure", ["png"])
    assert victim.read_text() == "mine"
    assert (folder / "summary.csv").read_text() == "table"
    assert not (folder / "figure.png").is_symlink()


def test_a_pipe_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names on this system")
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(ValueError, match="no ordinary file"):
        read_record(tmp_path / "run.json")
