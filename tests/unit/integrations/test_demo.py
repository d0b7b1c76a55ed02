"""The demo's command: a database of its own, a port of its own, and a plain end where there is no database."""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from umscosod.errors import DataError, MissingDependencyError
from umscosod.integrations import database
from umscosod.integrations.database import find_mongod
from umscosod.integrations.fiftyone.demo import __main__ as demo


@pytest.fixture
def signals() -> Iterator[None]:
    """Put back what the command changes for its process."""
    kept = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for each, handler in kept.items():
        signal.signal(each, handler)


def given(**values: Any) -> argparse.Namespace:
    defaults = {"pictures": Path("p"), "home": None, "name": "", "results": None, "if_possible": False, "open": False}
    return argparse.Namespace(**{**defaults, "host": "127.0.0.1", "port": None, **values})


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("if_possible", "code"), [(True, 0), (False, 1)])
def test_without_a_database_one_line_says_so(
    if_possible: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FIFTYONE_DATABASE_URI")
    monkeypatch.setattr(database, "find_mongod", lambda: None)
    assert demo.main(given(home=tmp_path / "home", if_possible=if_possible)) == code
    told = capsys.readouterr().err
    assert told.startswith("no FiftyOne data set was made: FiftyOne has no mongod that runs here. Run: pip install")
    assert told.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_the_home_is_used_and_a_database_of_the_user_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_DIR", "DATABASE_VALIDATION", "DEFAULT_DATASET_DIR", "PLUGINS_DIR", "DO_NOT_TRACK"):
        monkeypatch.setenv(f"FIFTYONE_{name}", "before")  # so that it is put back
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://mine")
    demo.use_home(tmp_path)
    assert os.environ["FIFTYONE_DATABASE_URI"] == "mongodb://mine"
    assert os.environ["FIFTYONE_DEFAULT_DATASET_DIR"] == str(tmp_path / "data")
    assert (tmp_path / "plugins" / "fiftyone-umscosod" / "fiftyone.yml").is_file()
    monkeypatch.delenv("FIFTYONE_DATABASE_URI")
    monkeypatch.setattr(demo, "require_database", lambda: None)
    monkeypatch.setattr(demo, "start_mongod", lambda folder: f"mongodb://own{folder.name}")
    demo.use_home(tmp_path)
    assert os.environ.pop("FIFTYONE_DATABASE_URI") == "mongodb://owndatabase"


def test_a_port_in_use_is_passed_over_and_one_asked_for_is_refused() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert demo._choose_port("127.0.0.1", None) != taken
        with pytest.raises(DataError, match=f"port {taken} of 127.0.0.1 cannot be used"):
            demo._choose_port("127.0.0.1", taken)


def test_a_port_that_was_just_closed_is_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the App does
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            accepted, _ = server.accept()
            accepted.close()  # this side first: its port is in TIME_WAIT
            assert client.recv(1) == b""
    assert demo._choose_port("127.0.0.1", port) == port


@pytest.mark.parametrize(("exit_code", "words"), [(62, "another version"), (100, "open in another terminal")])
def test_a_database_that_does_not_start_says_why(
    exit_code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mongod"
    program.write_text(f"#!/bin/sh\nexit {exit_code}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(database, "find_mongod", lambda: program)
    monkeypatch.setattr(atexit, "register", lambda *_: None)
    with pytest.raises(DataError, match=words):
        database.start_mongod(tmp_path / "db")


def test_no_program_is_a_missing_dependency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "find_mongod", lambda: None)
    with pytest.raises(MissingDependencyError, match="libcurl4"):
        database.start_mongod(tmp_path / "db")
    assert not (tmp_path / "db").exists()


@pytest.mark.skipif(find_mongod() is None, reason="FiftyOne has no mongod that runs here")
def test_it_listens_until_it_is_stopped_and_nobody_else_gets_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda stop, process: stops.append((stop, process)))
    address = database.start_mongod(tmp_path / "db")
    try:
        host, port = address.removeprefix("mongodb://").split(":")
        socket.create_connection((host, int(port)), 5).close()
        with pytest.raises(DataError, match="open in another terminal"):
            database.start_mongod(tmp_path / "db")
    finally:
        for stop, process in stops:
            stop(process)
    assert [process.poll() is not None for _, process in stops] == [True, True]
