"""The repository as a remote zoo source, served as an archive from this machine."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from umscosod.config.io import load_config

ROOT = Path(__file__).resolve().parents[2]
NAME = "umscosod/umscosod-cosal"
MANIFEST = json.loads((ROOT / "manifest.json").read_text(encoding="utf-8"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Requests are no news."""


@pytest.fixture(scope="module")
def archive_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a download of the repository holds, as far as it matters here, over HTTP."""
    folder = tmp_path_factory.mktemp("served")
    with zipfile.ZipFile(folder / "umscosod.zip", "w") as archive:
        for path in [ROOT / "manifest.json", ROOT / "fiftyone.yml", *(ROOT / "zoo").glob("*.py")]:
            archive.write(path, Path("umscosod", path.relative_to(ROOT)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/umscosod.zip"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def source(archive_url: str, mongod: Any) -> Iterator[str]:
    import fiftyone.zoo as foz

    foz.register_zoo_model_source(archive_url, overwrite=True)
    yield archive_url
    foz.delete_zoo_model_source(archive_url)


def test_the_zoo_model_labels_without_weights(source: str, toy_dataset: Any, tmp_path: Path) -> None:
    import fiftyone.zoo as foz

    assert source in foz.list_zoo_model_sources()
    settings = {"features.size_px": 112, "refine.crf.workers": 1}
    model = foz.load_zoo_model(NAME, settings=settings, cache=False)
    assert not model.predictor.is_trained
    written = Path(foz.find_zoo_model(NAME))
    assert load_config(file=written) == load_config("fast"), "the file is the model's settings"
    toy_dataset.sort_by("cls").apply_model(
        model,
        label_field="zoo",
        batch_size=4,
        group_field="cls",
        output_dir=str(tmp_path / "zoo"),
        skip_failures=False,
    )
    assert toy_dataset.count("zoo") == 8
    assert Path(toy_dataset.first()["zoo"].mask_path).is_file()
    # a person may edit the file: it is what the model is loaded by
    written.write_text("refine:\n  th0: 0.3\n", encoding="utf-8")
    edited = foz.load_zoo_model(NAME, cache=False)
    assert edited.predictor.config.refine.th0 == 0.3
    assert foz.load_zoo_model(NAME, cache=False, preset="smoke").predictor.config.features.size_px == 112


def test_the_app_is_offered_a_form(source: str) -> None:
    import fiftyone.zoo as foz

    form = foz.get_zoo_model(NAME).resolve_input(None)
    assert form.type.properties.keys() == {"output", "group_field", "checkpoint"}


def test_a_downloaded_copy_works_where_the_package_is_not_installed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("zoo", "umscosod"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import importlib.util, sys\n"
        "assert importlib.util.find_spec('umscosod') is None\n"
        f"spec = importlib.util.spec_from_file_location('zoo_source', {str(copy / 'zoo' / '__init__.py')!r})\n"
        "zoo = importlib.util.module_from_spec(spec); spec.loader.exec_module(zoo)\n"
        f"zoo.download_model('name', {str(tmp_path / 'model' / 'file.yaml')!r})\n"
        "print(sys.modules['umscosod'].__file__)\n"
    )
    (tmp_path / "packages").mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("umscosod", "_editable_impl_umscosod")):
            (tmp_path / "packages" / entry.name).symlink_to(entry)
    done = subprocess.run(  # -S: only these packages
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "packages")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(copy)
    assert load_config(file=tmp_path / "model" / "file.yaml") == load_config("fast")


def test_the_manifest_demands_what_the_library_does() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (model,) = MANIFEST["models"]
    assert model["base_name"] == NAME
    assert NAME.startswith(MANIFEST["name"])
    # left out: the command line's own, the second OpenCV, and what carries a marker, which FiftyOne cannot read
    not_listed = ("opencv-python>", "pydensecrf2", "tqdm", "tyro")
    wanted = [line for line in project["dependencies"] if not line.startswith(not_listed)]
    assert model["requirements"]["packages"] == wanted


def test_the_wheel_has_no_zoo() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    assert wheel["packages"] == ["umscosod"]
    assert "zoo" not in wheel["force-include"]
