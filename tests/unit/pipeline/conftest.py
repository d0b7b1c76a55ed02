"""One small collection, and one finished job of it that no test changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.jobs import quick_config
from tests.synthetic import tiny_collection
from umscosod.config import PipelineConfig
from umscosod.pipeline import LabelReport, label_groups


class Finished(NamedTuple):
    """A job that ended: its folder and its report."""

    out: Path
    report: LabelReport


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def config(cache: Path) -> PipelineConfig:
    return quick_config(cache)


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``image/GROUP/NAME.jpg`` beside ``gt/GROUP/NAME.png``, two groups of three."""
    root = tmp_path_factory.mktemp("collection")
    tiny_collection(root, groups=2, images=3, size=96)
    return root


@pytest.fixture(scope="session")
def images(collection: Path) -> Path:
    return collection / "image"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, images: Path, config: PipelineConfig) -> Finished:
    """A whole job that keeps the network's masks."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return Finished(out, label_groups(images, out, replace(config, keep="network")))
