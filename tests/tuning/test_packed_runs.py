"""The fair comparison's runs survive packing into one table, file by file."""

import json

from optbench.formats.run import read_sealed, write_sealed
from scripts.results import fair_comparison, packed


def test_packed_runs_are_unpacked_as_they_were(tmp_path):
    study = tmp_path / "study"
    words = '["optimizer=adam", "data.root={}", "results_dir={}", "name=x"]\n'
    files = {
        "study.json": '{"a": 1}\n',
        "jobs.jsonl": words.format("/home/me/data", "/home/me/results"),
        "figure.json": "{}",
    }
    for phase in ("trials", "tuned"):
        write_sealed_record(study / phase / "run-1" / "run.json", "/home/me/runs", "/home/me/data")
        for name, text in (("epochs.csv", 'a,b\r\n1,"ü, ""y"""\r\n'), ("steps.csv", "step\n1\n")):
            files[f"{phase}/run-1/{name}"] = text
    for name, text in files.items():
        path = study / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    count = packed.pack(study, tmp_path / "runs.csv.xz", fair_comparison.RUN_FILES)
    packed.unpack(tmp_path / "runs.csv.xz", tmp_path / "again")
    found = {
        str(path.relative_to(tmp_path / "again")): path.read_bytes().decode()
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    }
    records = [found.pop(f"{phase}/run-1/run.json") for phase in ("trials", "tuned")]
    files["jobs.jsonl"] = words.format("~/.cache/optbench", "results")
    assert found == files
    assert count == len(files) + len(records)
    assert records[0] == records[1]
    config = json.loads(records[0])["config"]
    assert config == {
        "results_dir": "results",
        "data": {"root": "~/.cache/optbench", "path": None},
        "dataset": {"name": "mnist", "root": "~/.cache/optbench"},
        "note": "ü",
    }
    assert (
        read_sealed(tmp_path / "again" / "trials" / "run-1" / "run.json")["status"] == "completed"
    )


def write_sealed_record(path, results_dir, root):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"root": root, "path": None}
    config = {"results_dir": results_dir, "data": data, "dataset": {"name": "mnist", "root": root}}
    write_sealed(path, {"status": "completed", "config": config | {"note": "ü"}})
