"""The wheel holds all that is needed, and works in another folder without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from optbench.runs import provenance

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the sdist, so both are tried."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.glob("*.tar.gz"))
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_configs_and_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [
        path
        for name in ("datasets/bundled", "report/web")
        for path in (ROOT / "optbench" / name).iterdir()
    ]
    for path in [*(ROOT / "conf").rglob("*.yaml"), *data]:
        inside = str(path.relative_to(ROOT)).replace("conf/", "optbench/conf/", 1)
        assert inside in names
    assert "hydra_plugins/optbench/tuned.py" in names
    assert not any(name.startswith(("tests/", "conf/", "scripts/")) for name in names)
    assert wheel.stat().st_size < 4e6


def test_an_installed_wheel_trains_and_plots_outside_the_checkout(wheel, tmp_path):
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    inside = {"base": str(home), "platbase": str(home)}
    packages = Path(sysconfig.get_path("purelib", "venv", inside))
    scripts = sysconfig.get_path("scripts", "venv", inside)
    python = Path(scripts) / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    # torch and the other large packages come from the environment that runs the tests; its own
    # .pth files, and with them the checkout, stay behind
    (packages / "site.pth").write_text(sysconfig.get_path("purelib") + "\n")

    work = tmp_path / "work"
    work.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OPTBENCH", "PYTHON"))}
    clean["OMP_NUM_THREADS"] = "1"

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=work, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run(str(python), "-c", "import optbench; print(optbench.__file__)")
    assert where.startswith(str(home))
    run(str(Path(scripts) / "optbench"), "-m", "optimizer=sgd,adam", "epochs=1", "name=x")
    assert (work / "results" / "x" / "train_loss-epoch.png").exists()
    out = run(str(python), "-m", "optbench", "plot", "results/x", "--format", "svg")
    assert "train_loss-epoch.svg" in out
    run(str(python), "-m", "optbench", "report", "results/x")
    assert (work / "results" / "x" / "report.html").stat().st_size > 60_000


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_told_without_a_lock_on_the_checkout(tmp_path):
    """Where the process is killed meanwhile, git's lock would stay."""
    file, index = tmp_path / "file", tmp_path / ".git" / "index"

    def git(*words: str) -> str:
        who = ["-c", "user.name=N", "-c", "user.email=n@example.org"]
        done = subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert provenance.git_commit(tmp_path) is None
    provenance.git_commit.cache_clear()
    git("init")
    assert provenance.git_commit(tmp_path) is None  # there is no commit yet
    provenance.git_commit.cache_clear()
    file.write_text("1")
    git("add", "file")
    git("commit", "-m", "1")
    os.utime(file, (1e9, 1e9))  # git would put down that it looked at it
    before = index.stat().st_ino, index.read_bytes()
    assert provenance.git_commit(tmp_path) == git("rev-parse", "HEAD")
    assert (index.stat().st_ino, index.read_bytes()) == before
    provenance.git_commit.cache_clear()
    file.write_text("2")
    (tmp_path / "another").touch()
    assert provenance.git_commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"
    provenance.git_commit.cache_clear()
