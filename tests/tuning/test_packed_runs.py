"""The fair comparison's runs survive packing into one table, file by file."""

from scripts.results import fair_comparison


def test_packed_runs_are_unpacked_as_they_were(tmp_path):
    study = tmp_path / "study"
    files = {"study.json": '{"a": 1}\n', "jobs.jsonl": "{}\n{}\n", "figure.json": "{}"}
    for phase in ("trials", "tuned"):
        for name, text in (("run.json", '{"x": "ü, \\"y\\""}\n'), ("epochs.csv", "a,b\r\n1,2\r\n"),
                           ("steps.csv", "step\n1\n")):  # fmt: skip
            files[f"{phase}/run-1/{name}"] = text
    for name, text in files.items():
        path = study / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    count = fair_comparison.pack(study, tmp_path / "runs.csv.xz")
    fair_comparison.unpack(tmp_path / "runs.csv.xz", tmp_path / "again")
    found = {
        str(path.relative_to(tmp_path / "again")): path.read_bytes().decode()
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    }
    assert found == files
    assert count == len(files)
