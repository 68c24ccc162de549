"""Run the commands of docs/ that train, as they stand, one after another, in a folder of their own.

    python -m scripts.site.try_commands [WORD...]

With words, only commands that have all of them. Left out are studies, tuned studies and the
gallery, which other scripts run, and what needs a cluster or pictures of one's own. The exit status
is 1 if a command failed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts import ROOT
from scripts.site.commands import commands, split, write_files

LEFT_OUT = (
    "study=",
    "hydra/sweeper=tuned",
    "hydra/launcher=",
    "data.path=pictures",
    "results_dir=",
)
FIRST_WORDS = ("check", "find_lr")  # sub-commands that train
MOST_SECONDS = 600
DATA = re.compile(r"```python\n(.*?csv\.writer.*?)```", re.S)  # a block that writes a table


def main() -> int:
    """Run each command; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    asked = parser.parse_args().words
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name))
        write_data(Path(name))
        for command in that_train():
            if all(word in command for word in asked):
                failed += run(command, Path(name)) != 0
    print(f"{failed} failed", flush=True)
    return int(failed > 0)


def write_data(folder: Path) -> None:
    """Run the blocks of docs/ that write tables, in a folder."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        for code in DATA.findall(page.read_text("utf-8")):
            subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)


def that_train() -> list[str]:
    """Return the commands of docs/ that train for seconds, or for a few minutes."""
    found = commands(sorted((ROOT / "docs").rglob("*.md")))
    trained = [c for c in found if "=" in split(c)[0] or c.startswith(("-", *FIRST_WORDS))]
    return [c for c in trained if "--help" not in c and not any(word in c for word in LEFT_OUT)]


def run(command: str, folder: Path) -> int:
    """Run a command; print its time, and what it said if it failed; return its status."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "optbench", *split(command)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        print(f"1  {MOST_SECONDS:5.1f} s, and not done  {command}", flush=True)
        return 1
    print(f"{done.returncode}  {time.monotonic() - began:5.1f} s  {command}", flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
