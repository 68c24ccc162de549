"""Claims: one worker gets a run, a silent one loses it, and clocks do not matter."""

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from optbench.runs import claims, locks
from optbench.runs.claims import ClaimLost, Heartbeats


def holder(name: str, **changes) -> dict:
    """A worker of another machine."""
    return {"worker": name, "place": "elsewhere", "pid": 1, "started": "1", "every": 0.0} | changes


def never(_) -> bool:
    return False


def test_of_many_who_try_at_once_one_gets_the_claim(tmp_path):
    start, won = threading.Barrier(16), []

    def attempt(number: int) -> None:
        start.wait()
        if claims.take(tmp_path, "run", holder(str(number)), never):
            won.append(number)

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.1"]


def test_of_many_who_take_over_one_gets_the_claim(tmp_path):
    counts = Counter()
    for round_ in range(20):
        folder = tmp_path / str(round_)
        first = claims.take(folder, "run", holder("dead"), never)
        start, won = threading.Barrier(8), []

        def attempt(number: int, folder=folder, start=start, won=won) -> None:
            start.wait()
            gone = lambda one: one.get("worker") == "dead"  # noqa: E731
            if claim := claims.take(folder, "run", holder(str(number)), gone):
                won.append(claim)

        threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts[len(won)] += 1
        assert won[0].holds()
        assert won[0].generation == 2
        assert not first.holds()
        with pytest.raises(ClaimLost, match="taken over"):
            first.check()
    assert counts == {1: 20}


def test_a_late_holder_releases_nothing_of_its_successor(tmp_path):
    first = claims.take(tmp_path, "run", holder("a"), never)
    second = claims.take(tmp_path, "run", holder("b"), lambda _: True)
    first.release()
    assert second.holds()
    second.release()
    assert list(tmp_path.iterdir()) == []
    third = claims.take(tmp_path, "run", holder("c"), never)
    assert third.generation == 1
    assert not first.holds()  # the file has its name, and another token
    assert not second.holds()


def test_a_file_system_without_links_makes_claims_as_well(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert claims.take(tmp_path, "run", holder("a"), never).holds()
    assert claims.take(tmp_path, "run", holder("b"), never) is None
    assert [path.name for path in tmp_path.iterdir()] == ["run.1"]


def test_an_answer_that_the_server_lost_is_no_lost_claim(tmp_path, monkeypatch):
    link = os.link

    def lose_answer(*names):
        link(*names)
        raise FileExistsError

    monkeypatch.setattr(os, "link", lose_answer)
    assert claims.take(tmp_path, "run", holder("a"), never).holds()


def test_silence_is_judged_by_the_observers_clock_alone(tmp_path):
    worker = holder("far")
    for hour in (-1, 1):  # the clock of the other machine, and so its file's time
        claims.beat(tmp_path, "far", 1)
        when = time.time() + 3600 * hour
        os.utime(claims.beat_file(tmp_path, "far"), (when, when))
        beats = Heartbeats(tmp_path, stale=0.3)
        assert not beats.is_silent(worker)
        time.sleep(0.2)
        claims.beat(tmp_path, "far", 2)
        assert not beats.is_silent(worker)
        time.sleep(0.2)
        assert not beats.is_silent(worker)
        time.sleep(0.15)
        assert beats.is_silent(worker)
        claims.beat(tmp_path, "far", 3)  # it was only slow
        assert not beats.is_silent(worker)


def test_a_worker_with_rare_heartbeats_has_more_time(tmp_path):
    claims.beat(tmp_path, "far", 1)
    beats = Heartbeats(tmp_path, stale=0.1)
    assert not beats.is_silent(holder("far", every=60.0))
    time.sleep(0.15)
    assert not beats.is_silent(holder("far", every=60.0))
    assert beats.is_silent(holder("far", every=0.0))


def test_a_dead_process_of_this_machine_is_silent_without_delay(tmp_path):
    here = {"place": claims.place(), "pid": os.getpid()}
    claims.beat(tmp_path, "w", 1)
    beats = Heartbeats(tmp_path, stale=60)
    assert not beats.is_silent(holder("w", **here, started=claims.started(os.getpid())))
    # another process has got the number
    assert beats.is_silent(holder("w", **here, started="1"))
    child = os.fork()
    if child == 0:
        os._exit(0)
    ended = holder("w", place=claims.place(), pid=child, started="7")
    assert beats.is_silent(ended)
    os.waitpid(child, 0)


def test_a_heartbeat_needs_no_more_room_than_its_file_has(tmp_path):
    claims.beat(tmp_path, "w", 1)
    size, inode = (s := claims.beat_file(tmp_path, "w").stat()).st_size, s.st_ino
    claims.beat(tmp_path, "w", 10**9)
    now = claims.beat_file(tmp_path, "w").stat()
    assert (now.st_size, now.st_ino) == (size, inode)


def test_a_damaged_claim_is_taken_over_when_it_stays_so(tmp_path):
    (tmp_path / "run.1").write_text("{torn")
    beats = Heartbeats(tmp_path, stale=0.1)
    assert claims.take(tmp_path, "run", holder("a"), beats.is_silent) is None
    time.sleep(0.15)
    assert claims.take(tmp_path, "run", holder("a"), beats.is_silent).generation == 2


def test_a_discarded_lock_is_free_and_its_old_holder_leaves_the_new_one_alone(tmp_path: Path):
    waits: list[str] = []
    with locks.run_lock(tmp_path, "run", waiting=waits.append):
        locks.discard(tmp_path, "run")
        # in another process, since a process never waits for its own lock
        child = os.fork()
        if child == 0:
            with locks.run_lock(tmp_path, "run", waiting=lambda _: os._exit(3)):
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        (tmp_path / ".locks" / "run").write_text("the next holder's")
    assert (tmp_path / ".locks" / "run").read_text() == "the next holder's"
    assert json.dumps(waits) == "[]"
