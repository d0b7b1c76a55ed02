"""Worker processes of this machine: order, errors, deaths, and what they say."""

from __future__ import annotations

import logging
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from umscosod.errors import DataError, EngineError
from umscosod.workers import LazyPool, ProcessEngine, WorkerDiedError, WorkerPool

# Workers import this file by its name, so the functions below can be sent.


def double(number: int) -> int:
    logging.getLogger("umscosod.toy").warning("doubled %d", number)
    if number < 0:
        raise DataError(f"{number} is below 0")
    return 2 * number


def die(folder: Path, times: int, number: int) -> int:
    """Kill the own process the first `times` calls with 3."""
    if number == 3 and len(list(folder.iterdir())) < times:
        (folder / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def give_a_function(number: int) -> object:
    return lambda: number


def count_processes(pool: WorkerPool) -> int:
    return sum(worker.process.poll() is None for worker in pool._workers)


def test_results_come_in_the_order_of_the_items_and_items_only_a_little_ahead() -> None:
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    with WorkerPool(2) as pool:
        results = pool.map(partial(pool.call, double), items())
        assert next(results) == 0
        assert len(taken) <= 5
        assert list(results) == [2 * number for number in range(1, 20)]
    assert count_processes(pool) == 0


def test_what_a_worker_raises_is_raised_here_and_the_pool_goes_on() -> None:
    with WorkerPool(2) as pool:
        with pytest.raises(DataError, match="-1 is below 0"):
            list(pool.map(partial(pool.call, double), [1, -1, 2, 3]))
        assert pool.call(double, 4) == 8


def test_what_cannot_be_sent_is_said_and_costs_no_worker() -> None:
    with WorkerPool(1) as pool:
        (before,) = pool._workers
        with pytest.raises(Exception, match=r"[Cc]an't (get local object|pickle)|annot pickle"):
            pool.call(give_a_function, 1)
        with pytest.raises(Exception, match=r"[Cc]an't (get local object|pickle)|annot pickle"):
            pool.call(lambda: 1)
        assert pool.call(double, 2) == 4
        assert pool._workers == [before]


def test_an_item_whose_worker_died_is_done_by_a_fresh_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with WorkerPool(2) as pool:
        assert list(pool.map(partial(pool.call, die, tmp_path, 1), range(6))) == list(range(6))
        assert count_processes(pool) == 2
    assert "a worker process died (SIGKILL): its work is tried in a fresh one" in caplog.text


def test_an_item_that_kills_two_workers_is_an_error_that_says_so(tmp_path: Path) -> None:
    with WorkerPool(1) as pool:
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            pool.call(die, tmp_path, 2, 3)
        assert pool.call(double, 1) == 2
    (tmp_path / "again").mkdir()
    with WorkerPool(2) as pool, pytest.raises(EngineError, match=r"died twice of one piece of work \(SIGKILL\)"):
        list(ProcessEngine(pool).map(partial(die, tmp_path / "again", 2), range(6)))


def test_who_leaves_before_the_end_ends_the_workers() -> None:
    with WorkerPool(2) as pool:
        results = pool.map(partial(pool.call, double), range(20))
        next(results)
        results.close()
        assert count_processes(pool) == 0


def test_an_engine_says_here_what_its_workers_say(caplog: pytest.LogCaptureFixture) -> None:
    with WorkerPool(2) as pool:
        assert list(ProcessEngine(pool).map(double, range(3))) == [0, 2, 4]
    told = [record.message for record in caplog.records if record.name == "umscosod.toy"]
    assert told == ["doubled 0", "doubled 1", "doubled 2"]


def test_who_takes_all_that_was_asked_for_leaves_the_pool_to_others() -> None:
    with WorkerPool(2) as pool:
        results = pool.map(partial(pool.call, double), range(4))
        assert [next(results) for _ in range(4)] == [0, 2, 4, 6]
        results.close()  # not at its end yet, but nothing is at work
        assert not pool.is_stopped
        assert pool.call(double, 5) == 10


def test_a_lazy_pool_starts_when_it_is_needed_and_once() -> None:
    with LazyPool() as lazy:
        assert lazy.running is None
        pool = lazy.start()
        assert lazy.start() is pool is lazy.running
        assert count_processes(pool) == pool.count
    assert count_processes(pool) == 0
