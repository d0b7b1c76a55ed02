"""Forms without a database: what they ask about samples has fixed answers; tests/integration asks really."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def two_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of four images by any field, and no field that names them."""
    pytest.importorskip("fiftyone")
    import umscosod.integrations.fiftyone as integration
    from plugin import outlook
    from umscosod.integrations.fiftyone.runs import start
    from umscosod.integrations.fiftyone.runs.survey import Survey

    def survey(view: Any, group_field: str | None = None) -> Survey:
        return Survey(group_field=group_field, sizes={"cat": 4, "dog": 4})

    monkeypatch.setattr(integration, "survey", survey)
    monkeypatch.setattr(integration, "likely_group_field", lambda view: None)
    monkeypatch.setattr(integration, "find_interrupted", lambda dataset, key: None)
    monkeypatch.setattr(integration, "list_networks", lambda: ())
    monkeypatch.setattr(start, "find_run", lambda dataset, key: None)
    outlook._CACHE.clear()
