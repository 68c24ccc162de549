"""The commands of docs/text.md run, on the bundled novels, tasks and a file of the user's."""

import json
import re
import shlex
from pathlib import Path

import pytest
from in_process import call

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "text.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = re.findall(r"^    python -m optbench (.*)$", PAGE, re.M)
SHORT = {  # by the first word of a command that would take minutes
    "problem=austen_gpt": [
        "data.subset=64", "data.val_size=8", "epochs=1", "seed=0", "model.width=8", "model.heads=1",
        "log.eval_train_examples=8",
    ],
}  # fmt: skip


@pytest.mark.parametrize("command", [c for c in COMMANDS if "study=" not in c])
def test_commands_of_the_page_on_texts_run(monkeypatch, tmp_path, command):
    (tmp_path / "signsgd.py").write_text(
        re.search(r"```python\n(# signsgd.*?)```", README, re.S)[1]
    )
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)
    first = next((word for word in words if word in SHORT), "")
    usual = ["quiet=true", "device=cpu", "num_threads=1", "hydra/launcher=basic"]
    assert (
        call(monkeypatch, *words, *SHORT.get(first, []), *usual[: 4 if "-m" in words else 3]) == 0
    )
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert len(records) == (2 if "optimizer=sgd,adam" in words else 1)
    assert {record["status"] for record in records} == {"completed"}
