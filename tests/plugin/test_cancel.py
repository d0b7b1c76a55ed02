"""A delegated job asks at each report whether it is to stop; a database that is away is no answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fiftyone")

from pymongo.errors import AutoReconnect

from umscosod.errors import Cancelled


class Context:
    """What the progress of a delegated job needs."""

    _delegated_operation_id = "an id"

    def __init__(self) -> None:
        self.shown: list[str] = []

    def set_progress(self, *, progress: float, label: str) -> None:
        self.shown.append(label)


def report_while(monkeypatch: pytest.MonkeyPatch, get: Any) -> Context:
    from fiftyone.operators import delegated

    from plugin.operators.base import _delegated_progress

    monkeypatch.setattr(delegated, "DelegatedOperationService", lambda: SimpleNamespace(get=get))
    ctx = Context()
    _delegated_progress(ctx)(1, 1, "training")
    return ctx


def test_a_running_operation_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = report_while(monkeypatch, lambda operation: SimpleNamespace(run_state="running"))
    assert ctx.shown == ["training 1/1"]


def test_an_operation_marked_as_failed_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Cancelled, match="fiftyone delegated fail"):
        report_while(monkeypatch, lambda operation: SimpleNamespace(run_state="failed"))


def test_a_database_that_is_away_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def get(operation: str) -> Any:
        raise AutoReconnect("connection closed")

    assert report_while(monkeypatch, get).shown == ["training 1/1"]
    assert "connection closed" in caplog.text
