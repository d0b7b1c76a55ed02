"""The demo's data set on a real database: complete, made once, left alone afterwards, and not ended by one bad file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.servers import Mongod
from tests.integration.toys import write_toy_pictures
from umscosod.config.io import load_config
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.demo.dataset import build_demo
from umscosod.pipeline import label_groups

fo = pytest.importorskip("fiftyone")
pytestmark = pytest.mark.mongod

SMOKE = load_config("smoke")
BROKEN = "disk-0/00.jpg"


@pytest.fixture(autouse=True)
def no_dataset_left(mongod: Mongod) -> Iterator[None]:
    mongod.start()
    before = set(fo.list_datasets())
    yield
    for name in set(fo.list_datasets()) - before:
        fo.delete_dataset(name)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of four with ground truth; one picture is no picture."""
    root = tmp_path_factory.mktemp("demo") / "toys"
    write_toy_pictures(root)
    (root / "image" / BROKEN).write_bytes(b"not a picture")
    return root


@pytest.fixture(scope="module")
def results(pictures: Path) -> Path:
    """What the command line leaves of them."""
    out = pictures.parent / "result"
    label_groups(pictures / "image", out, SMOKE, train=False)
    return out


def state(dataset: Any) -> dict[str, Any]:
    """What a second call must leave as it is."""
    return {
        "masks": [dataset.values(f"{run}.mask_path") for run in ("cosal", "tokencut", "pseudo")],
        "ids": dataset.values("id"),
        "evaluations": {key: dataset.get_evaluation_info(key).timestamp for key in dataset.list_evaluations()},
        "runs": dataset.list_runs(),
        "views": dataset.list_saved_views(),
        "workspaces": dataset.list_workspaces(),
        "fields": sorted(dataset.get_field_schema()),
    }


def test_made_complete_and_left_alone_afterwards(pictures: Path, results: Path) -> None:
    report = build_demo(pictures, name="umscosod-demo", results=results, config=SMOKE)
    dataset = fo.load_dataset("umscosod-demo")
    assert (report.n_images, report.n_groups, report.is_success) == (8, 2, True)
    assert [run.counts["failed"] for run in report.runs] == [1, 1, 1]
    assert report.comparison is not None
    assert report.comparison.n == 7
    assert "A eval_cosal" in report.summary
    assert dataset.count("ground_truth") == 8
    assert dataset.count("cosal") == dataset.count("cosal_map") == dataset.count("tokencut") == 7
    assert len(dataset.load_saved_view("by-group")) == 2
    assert dataset.load_saved_view("least-certain-first").first().filepath.endswith(BROKEN)
    compare = dataset.load_workspace("compare")
    assert [[panel.type for panel in side.children] for side in compare.children] == [
        ["Samples"],
        ["compare_models", "model_evaluation_panel_builtin"],
    ]
    assert dataset.app_config.active_fields.paths == ["cls", "cosal", "cosal_confidence"]

    before = state(dataset)
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="value")  # a user's wish
    dataset.save()
    again = build_demo(pictures, name="umscosod-demo", results=results, config=SMOKE)
    dataset.reload()
    assert [(run.rows, run.kept) for run in again.runs] == [((), 8)] * 3
    assert state(dataset) == before
    assert dataset.app_config.color_scheme.color_by == "value"


def test_the_panels_named_are_those_of_the_plugin() -> None:
    from plugin.panels import PANELS
    from umscosod.integrations.fiftyone.demo import dataset as look

    ours = {panel().config.name for panel in PANELS}
    assert {look.COMPARE_PANEL, look.REVIEW_PANEL} <= ours


def test_pictures_of_ones_own_have_no_scores_and_new_ones_are_added(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    written = write_toy_pictures(tmp_path / "made", n_groups=1, n_images=4)
    folder.joinpath("disks").mkdir(parents=True)
    for _, image, _ in written[:3]:
        image.rename(folder / "disks" / image.name)
    first = build_demo(folder, config=SMOKE)  # without results: the main run trains
    assert (first.name, first.n_images, first.comparison) == ("umscosod-photos", 3, None)
    dataset = fo.load_dataset("umscosod-photos")
    assert not dataset.has_field("ground_truth")
    assert dataset.list_workspaces() == ["review"]
    written[3][1].rename(folder / "disks" / written[3][1].name)
    second = build_demo(folder, config=SMOKE)
    assert (second.n_images, [len(run.rows) for run in second.runs]) == (4, [1, 1, 1])


def test_other_data_sets_of_that_name_are_left_alone(pictures: Path, tmp_path: Path) -> None:
    fo.Dataset("umscosod-toys", persistent=True)
    with pytest.raises(DataError, match="not made by the demo"):
        build_demo(pictures, config=SMOKE)
    assert len(fo.load_dataset("umscosod-toys")) == 0
    with pytest.raises(DataError):
        build_demo(tmp_path / "nowhere", config=SMOKE)
    assert not fo.dataset_exists("umscosod-nowhere")


def test_help_names_the_module_that_is_run() -> None:
    line = [sys.executable, "-m", "umscosod.integrations.fiftyone.demo", "--help"]
    told = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert told.startswith("usage: python -m umscosod.integrations.fiftyone.demo [")
