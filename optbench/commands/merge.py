"""`optbench merge A B -o C`: join the folders of one study from several machines."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from optbench.analysis.table import check_folders
from optbench.commands import Parser
from optbench.common.errors import UserError
from optbench.common.files import expanded, replace_text
from optbench.common.text import count
from optbench.formats import job_list
from optbench.formats.run import write_sealed
from optbench.sweeps.sharing import joining
from optbench.tuning.joining import join_manifests

OPTIONS = (job_list.FIGURE_FILE, job_list.CLAIM_FILE, job_list.ENGINES_FILE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `optbench merge`; return 0, or 1 if there are conflicts or damaged files."""
    parser = Parser(
        prog="optbench merge",
        description="Join folders of runs from several machines into a new folder. Runs are the "
        "same if their hashes are; conflicts are reported, and the folders stay as they are.",
    )
    parser.add_argument(
        "folders", nargs="+", type=expanded, metavar="FOLDER", help="of a sweep, or of all results"
    )
    parser.add_argument(
        "-o", "--out", required=True, type=expanded, metavar="FOLDER", help="the new folder"
    )
    asked = parser.parse_args(argv)
    check_folders(asked.folders)
    sources, out = [Path(folder) for folder in asked.folders], Path(asked.out)
    check_places(sources, out)
    joined = joining.join_runs(sources)
    if not joined.kept:
        raise UserError(f"there are no runs below {', '.join(map(str, sources))}")
    temporary = out.with_name(f"{out.name}.{uuid4().hex[:6]}.tmp")
    try:
        temporary.mkdir(parents=True)
        joining.copy_runs(joined.kept, temporary)
        told = join_files(sources, temporary)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    again = f", {joined.same} of them more than once" if joined.same else ""
    print(f"{out}: {count(len(joined.kept), 'run')}{again}")
    print(f"python -m optbench plot {out} draws them")
    problems = [*joined.problems, *(f"conflict: {text}" for text in [*joined.conflicts, *told])]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def check_places(sources: Sequence[Path], out: Path) -> None:
    """Raise `UserError` for a folder that is not new, or lies in an input."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already, and nothing is overwritten: give a new -o FOLDER")
    for source in sources:
        if out.resolve().is_relative_to(source.resolve()):
            raise UserError(f"{out} lies in {source}, which stays as it is: give another -o FOLDER")
    if len({source.resolve() for source in sources}) < len(sources):
        raise UserError("one folder was given twice")


def join_files(sources: Sequence[Path], target: Path) -> list[str]:
    """Write the files of all sweeps, and return a line for each contradiction."""
    told = []
    for place in joining.sweeps_in(sources):
        folders = [source / place for source in sources if (source / place).is_dir()]
        here = target / place
        here.mkdir(parents=True, exist_ok=True)
        if lines := joining.join_lists(folders):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            replace_text(here / job_list.JOBS_FILE, text)
        for name in OPTIONS:
            content, contradiction = joining.join_options(folders, name)
            if content is not None:
                write_sealed(here / name, content)
            told += [contradiction] if contradiction else []
        manifest, contradictions = join_manifests(folders)
        if manifest is not None:
            write_sealed(here / job_list.MANIFEST_FILE, manifest)
        told += contradictions
    return told
