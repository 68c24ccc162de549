"""A sweep's folder: its name, and the files that identify it."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict, read_write

from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.config import own_settings
from optbench.config.compose import texts_of
from optbench.formats.groups import choices, own_folders
from optbench.formats.job_list import SWEEP_FILES, is_cosmetic
from optbench.formats.keys import KEYS, PROBLEM, SERIES, TOP_KEYS


def folder_of(config: DictConfig) -> Path:
    """Return the sweep's folder. The same command returns to it, and so resumes.

    The folder is the key `name`. Otherwise it lies in `sweeps/` with the name of the study,
    or of words from the overrides with their hash.
    """
    results = Path(expanded(str(config.results_dir)))
    if config.name is not None:
        return results / str(config.name)
    study = config.hydra.runtime.choices.get("study")
    overrides = sorted(
        text for text in texts_of(config.hydra.overrides.task) if not is_cosmetic(text)
    )
    if study and not overrides:
        return results / "sweeps" / str(study)
    words = [study] if study else [re.sub(r"[^\w.]+", "-", text).strip("-") for text in overrides]
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:6]
    return results / "sweeps" / "-".join(["_".join(words)[:60].strip("-_") or "sweep", digest])


def name_folder(config: DictConfig, sweep: Path) -> None:
    """Set the sweep's folder in the configuration and in the overrides of its jobs."""
    text = str(sweep).replace("\\", "\\\\").replace("'", "\\'")
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = str(sweep)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{text}'")


def check_folder(sweep: Path) -> None:
    """Raise `UserError` if a folder holds files but no sweep.

    The sweep's figures would replace other files, such as those in results/fair_comparison.
    """
    if not sweep.is_dir() or any((sweep / name).exists() for name in SWEEP_FILES):
        return
    others = sorted(p.name for p in sweep.iterdir() if p.is_file() and p.name[0] != ".")
    if others:
        raise UserError(
            f"{sweep} holds files of something else ({', '.join(others[:3])}), and a sweep would "
            f"write its figures among them: choose another name=NAME"
        )


def changed_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command that change what a study compares, but for its seeds."""
    tops = {word: word.partition("=")[0].lstrip("+~").split(".") for word in words}
    changing = {name for name in TOP_KEYS if KEYS[name].role & (PROBLEM | SERIES)}
    return [
        word
        for word, (top, *rest) in tops.items()
        if (top in changing or own_settings.split_key(word, [*choices("optimizer")]))
        and (top, *rest[:1]) not in (("data", "root"), ("data", "download"))
    ]


def command_of(config: DictConfig) -> dict[str, Any]:
    """Return the words of the command, and where its folder lies below all results.

    `optbench work FOLDER` repeats the command on other machines, which may see the folder at
    another place.
    """
    results = Path(expanded(str(config.results_dir))).absolute()
    sweep = Path(config.hydra.sweep.dir).absolute()
    inside = sweep.relative_to(results).as_posix() if sweep.is_relative_to(results) else None
    flags = [f"--config-dir={folder}" for folder in own_folders]
    hydra = [
        text
        for text in texts_of(config.hydra.overrides.hydra)
        if not text.lstrip("+").startswith(("hydra.sweep.", "hydra/launcher=", "hydra.launcher."))
        and "hydra.mode" not in text
    ]
    task = own_settings.as_typed(texts_of(config.hydra.overrides.task))
    return {"task": [*flags, *task], "hydra": hydra, "inside": inside}
