"""The plugin in a real App server: one bad panel or operator, and its endpoint fails for every plugin."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.integration.servers import Mongod

MANIFEST = yaml.safe_load((Path(__file__).resolve().parents[2] / "fiftyone.yml").read_text(encoding="utf-8"))


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:  # an answer other than 2xx is raised
        return json.load(reply)


def test_the_app_is_offered_all_that_the_manifest_lists(app_url: str) -> None:
    answer = post(f"{app_url}/operators", {})
    assert answer["errors"] == []
    prefix = f"{MANIFEST['name']}/"
    ours = {operator["uri"].removeprefix(prefix) for operator in answer["operators"] if prefix in operator["uri"]}
    assert ours == {*MANIFEST["operators"], *MANIFEST.get("panels", [])}


def test_the_app_reads_the_database_of_the_tests(app_url: str, toy_dataset: Any) -> None:
    query = {"query": '{ datasets(search: "", first: 1000) { edges { node { name } } } }'}
    found = {edge["node"]["name"] for edge in post(f"{app_url}/graphql", query)["data"]["datasets"]["edges"]}
    assert toy_dataset.name in found


def test_a_stopped_database_comes_back_with_its_data(mongod: Mongod, toy_dataset: Any) -> None:
    import fiftyone as fo

    mongod.stop()
    assert not mongod.is_running
    mongod.start()
    mongod.kill()
    mongod.start()
    assert toy_dataset.name in fo.list_datasets()
    assert toy_dataset.count() == 8
