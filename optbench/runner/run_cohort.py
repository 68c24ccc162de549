"""Runs trained at once, each into a folder of its own, with its own lock and checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

from optbench.common.console import Show
from optbench.common.errors import memory_is_full
from optbench.engines.cohort import train
from optbench.runner.run import (
    Outcome,
    Plan,
    arguments,
    cost,
    fail,
    finish,
    locked,
    new_folder,
    save,
    unfinished,
    write,
)
from optbench.runs import folder as runs
from optbench.training.loop import Update

Begun = Mapping[int, tuple[runs.RunFolder, dict[str, Any]]]


def complete_together(
    planned: Sequence[Plan],
    shows: Sequence[Show],
    stop: Callable[[], bool],
    opened: Callable[[int, Path], None] = lambda place, folder: None,
) -> list[Outcome | Exception]:
    """Train runs of one `grouping.group_key` at once, or the rest of those that were interrupted.

    In place of an outcome stands what ended that run alone: its folder is marked as failed, if it
    has one. shows: of each run. Runs that were interrupted at the same step go on together. Of more
    than the device's memory holds, each half is trained at once.
    """
    ended: dict[int, Outcome | Exception] = {}
    with ExitStack() as held:
        # in one order everywhere: two cohorts never wait for each other
        for i in sorted(range(len(planned)), key=lambda i: str(planned[i].record["run_id"])):
            if outcome := held.enter_context(locked(planned[i], stop)):
                ended[i] = outcome
        begun = {}
        for i in range(len(planned)):
            try:
                if i not in ended and (found := unfinished(planned[i])):
                    begun[i] = found
            except Exception as error:
                ended[i] = error
        by_step: dict[int, list[int]] = {}
        for i in range(len(planned)):
            if i not in ended:
                by_step.setdefault(begun[i][1]["step"] if i in begun else 0, []).append(i)
        groups = [places for _, places in sorted(by_step.items())]
        while groups:
            places = groups.pop()  # those that are nearly done first
            try:
                _train({i: planned[i] for i in places}, begun, shows, stop, opened, ended)
            except TooMany:
                left = [i for i in places if i not in ended]
                groups += [left[len(left) // 2 :], left[: len(left) // 2]]
            except Exception as error:
                ended |= {i: error for i in places if i not in ended}
    return [ended[i] for i in range(len(planned))]


def _train(
    planned: Mapping[int, Plan],
    begun: Begun,
    shows: Sequence[Show],
    stop: Callable[[], bool],
    opened: Callable[[int, Path], None],
    ended: dict[int, Outcome | Exception],
) -> None:
    """Train them at once and put what became of each into `ended`.

    Raises TooMany where the device's memory does not hold them: none of them has begun then.
    """
    places = list(planned)
    asked = {i: arguments(planned[i]) for i in places}
    folders = {i: begun[i][0] for i in places if i in begun}
    for i, folder in folders.items():
        opened(i, folder.path)
    every = [planned[i].config["checkpoint_seconds"] for i in places]
    saved = dict.fromkeys(places, monotonic())

    stepped = any(i in begun for i in places)

    def take(number: int, update: Update | Exception) -> None:
        nonlocal stepped
        i = places[number]
        stepped = stepped or (isinstance(update, Update) and update.step > 0)
        if i in ended:
            return  # its folder could not be written; the others go on
        try:
            if isinstance(update, Exception):
                raise update
            if i not in folders:
                planned[i].record["cohort"] = len(planned)
                folders[i] = new_folder(planned[i])
                opened(i, folders[i].path)
                folders[i].record["cost"] = cost(planned[i])
            write(folders[i], update)
            shows[i](update)
            late = every[number] is not None and monotonic() - saved[i] >= every[number]
            due = late and update.step  # at step 0 there is nothing to save
            if update.status == "interrupted" or (update.status == "running" and due):
                assert trained is not None
                save(folders[i], trained.state_dict(number))
                saved[i] = monotonic()
            if update.status != "running":
                finish(folders[i], update.status)
                ended[i] = Outcome(folders[i].path, update.status)
        except Exception as error:
            ended[i] = error
            if i in folders:
                fail(folders[i], error)

    try:
        states = [begun[i][1] if i in begun else None for i in places]
        trained, misfits = train.gather(list(asked.values()), states)
        for number, misfit in misfits.items():
            take(number, misfit)
        if trained is not None:
            for number, update in trained.updates(stop):
                take(number, update)
    except BaseException as error:
        left = [i for i in places if i not in ended]
        fewer = memory_is_full(error) and len(left) > 1 and not stepped
        for i in left:
            if i in folders:
                folders[i].discard() if fewer else fail(folders[i], error)
        if fewer:
            raise TooMany from None
        raise


class TooMany(Exception):
    """So many runs do not fit into the device's memory at once."""
