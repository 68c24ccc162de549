"""The pool of processes: order, deaths, time limits, interruption; nothing of optbench in it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optbench.sweeps.worker_pool import Pool, Task


def set_up(number: int, value: int) -> None:
    os.environ["SET_UP"] = str(value)
    os.environ["NUMBER"] = str(number)


def double(x, *, send, stop):
    send(os.getpid())
    print("printed", x)
    return 2 * x, os.environ["SET_UP"], os.environ["OMP_NUM_THREADS"]


def die(how, *, send, stop):
    print("last words", flush=True)
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), how)


def tell_number(*, send, stop):
    send(int(os.environ["NUMBER"]))
    time.sleep(0.3)


def wrong(*, send, stop):
    raise ValueError("wrong")


def hang(*, send, stop):
    time.sleep(60)


def wait(*, send, stop):
    send("waits")
    while not stop():
        time.sleep(0.01)
    return "stopped"


@pytest.fixture
def pool():
    pool = Pool(2, set_up, 7)
    yield pool
    pool.close()


def run(pool, tasks, **options):
    left = [Task(key, function, arguments) for key, (function, *arguments) in enumerate(tasks)]
    left.reverse()
    return list(pool.run(lambda: left.pop() if left else None, **options))


def ends(events):
    return {e.key: (e.kind, e.value) for e in events if e.kind in ("done", "failed", "died")}


def test_tasks_are_done_by_processes_that_stay(pool):
    events = run(pool, [(double, x) for x in range(6)])
    assert ends(events) == {x: ("done", (2 * x, "7", "1")) for x in range(6)}
    pids = {e.value for e in events if e.kind == "sent"}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    assert {e.value for e in events if e.kind == "printed"} == {f"printed {x}\n" for x in range(6)}
    assert [e.key for e in events if e.kind == "started"] == list(range(6))
    again = run(pool, [(double, x) for x in range(2)])
    assert {e.value for e in again if e.kind == "sent"} <= pids


def test_a_worker_that_dies_is_reported_and_replaced(pool):
    tasks = [(die, "exit"), (double, 1), (die, signal.SIGKILL), (die, signal.SIGSEGV), (wrong,)]
    found = ends(run(pool, [*tasks, (double, 5)]))
    assert found[1] == ("done", (2, "7", "1"))
    assert found[5] == ("done", (10, "7", "1"))
    assert found[4] == ("failed", "ValueError: wrong")
    for key, how in ((0, "exit status 3"), (2, "SIGKILL (out of memory?)"), (3, "SIGSEGV")):
        kind, why = found[key]
        assert kind == "died"
        assert how in why.splitlines()[0]
        assert "last words" in why


def test_an_idle_worker_that_is_killed_is_replaced(pool):
    (pid,) = {e.value for e in run(pool, [(double, 1)]) if e.kind == "sent"}
    os.kill(pid, signal.SIGKILL)
    found = ends(run(pool, [(double, x) for x in range(4)]))
    kinds = [kind for kind, _ in found.values()]
    assert kinds.count("done") >= 3  # at most the task that it was given meanwhile is lost
    assert ends(run(pool, [(double, 5)]))[0][0] == "done"


def test_workers_are_numbered_and_a_dead_ones_number_is_given_again(pool):
    numbers = [e.value for e in run(pool, [(tell_number,)] * 2) if e.kind == "sent"]
    assert sorted(numbers) == [0, 1]
    run(pool, [(die, "exit")])
    numbers = [e.value for e in run(pool, [(tell_number,)] * 2) if e.kind == "sent"]
    assert sorted(numbers) == [0, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file keeps its name there")
def test_what_the_workers_print_leaves_no_file_whatever_happens_to_us(pool, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    events = run(pool, [(double, 1)])
    assert [e.value for e in events if e.kind == "printed"] == ["printed 1\n"]
    assert not list(tmp_path.glob("optbench-worker-*"))  # nobody has closed the pool


def test_a_task_that_hangs_is_ended_where_it_hangs(pool):
    begun = time.monotonic()
    found = ends(run(pool, [(hang,), (double, 1)], time_limit=0.5))
    assert time.monotonic() - begun < 30
    assert found[1][0] == "done"
    assert found[0][0] == "died"
    assert "time limit of 0.5 s" in found[0][1]
    assert "in hang" in found[0][1]  # faulthandler's traceback


def test_stop_ends_what_runs_and_begins_nothing_else(pool):
    told = []
    left = [Task(key, wait, ()) for key in range(5)]
    events = []
    for event in pool.run(lambda: left.pop() if left else None, stop=lambda: bool(told)):
        events.append(event)
        if event.kind == "sent":
            told.append(True)
    assert [kind for kind, _ in ends(events).values()] == ["done"] * len(ends(events))
    assert len(left) == 5 - len(ends(events))
    assert ends(run(pool, [(double, 1)]))[0][0] == "done"  # the pool is still of use


def test_whoever_leaves_early_ends_the_workers(pool):
    left = [Task(0, wait, ())]
    events = pool.run(lambda: left.pop() if left else None)
    while (event := next(events)).kind != "sent":
        pass
    (process,) = [worker.process for worker in pool._workers]
    events.close()
    assert event.value == "waits"
    assert not process.is_alive()


def test_workers_end_with_their_parent(tmp_path):
    script = (
        "import sys, test_worker_pool as t\n"
        "from optbench.sweeps.worker_pool import Pool, Task\n"
        "left = [Task(0, t.hang, ()), Task(1, t.wait, ())]\n"
        "pool = Pool(2, t.set_up, 1)\n"
        "for e in pool.run(lambda: left.pop() if left else None):\n"
        "    if e.kind == 'sent':\n"
        "        print(*(w.process.pid for w in pool._workers), flush=True)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert parent.stdout is not None
    pids = list(map(int, parent.stdout.readline().split()))
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False
