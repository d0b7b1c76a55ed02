"""One job in a folder at a time, whoever holds it and however it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from umscosod.data.files import is_held, lock_folder
from umscosod.errors import DataError

HOLDER = """
import sys
from pathlib import Path
from umscosod.data.files import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
BUSY = r"out is being worked on by another process \(or an earlier click\); wait for it or stop it"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


def test_a_second_holder_is_turned_away_until_the_first_is_done(out: Path) -> None:
    with lock_folder(out):
        with pytest.raises(DataError, match=BUSY), lock_folder(out):
            pass
        assert list(out.iterdir()) == []  # no file tells of it
    with lock_folder(out):
        pass


def test_an_error_inside_lets_go(out: Path) -> None:
    with pytest.raises(ValueError, match="inside"), lock_folder(out):
        raise ValueError("inside")
    with lock_folder(out):
        pass


def test_another_thread_is_turned_away_too(out: Path) -> None:
    caught: list[str] = []

    def click() -> None:
        try:
            with lock_folder(out):
                caught.append("in")
        except DataError as error:
            caught.append(str(error))

    with lock_folder(out):
        thread = threading.Thread(target=click)
        thread.start()
        thread.join()
    assert len(caught) == 1
    assert "an earlier click" in caught[0]


def test_another_process_holds_it_until_it_is_killed(out: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    line = [sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(DataError, match=BUSY), lock_folder(out):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    with lock_folder(out):
        pass


def test_what_is_held_can_be_read_and_written_by_who_does_not_ask(out: Path) -> None:
    with lock_folder(out):
        (out / "report.json").write_text("{}", encoding="ascii")
        assert [path.read_text(encoding="ascii") for path in out.iterdir()] == ["{}"]


def test_a_folder_removed_while_it_is_being_locked_is_made_anew(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, removed = fcntl.flock, []

    def remove_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(out.rmdir())
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with lock_folder(out):
        assert out.is_dir()
        with pytest.raises(DataError, match=BUSY), lock_folder(out):
            pass


def test_where_folders_have_no_locks_the_log_says_so(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(9, "Bad file descriptor")  # what NFS answers

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(out), lock_folder(out):
        pass
    assert "cannot be locked (Bad file descriptor); never start two jobs on it" in caplog.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot write .*file/out"), lock_folder(tmp_path / "file" / "out"):
        pass


def test_looking_whether_a_folder_is_held_turns_nobody_away(out: Path) -> None:
    assert not is_held(out)
    assert not out.exists()
    with lock_folder(out):
        assert is_held(out)
    assert not is_held(out)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            is_held(out)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(200):
            with lock_folder(out):
                pass
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
