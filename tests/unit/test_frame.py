"""The frame itself: what an import costs, what the files around the code promise, and the network guard."""

from __future__ import annotations

import socket
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NOT_SHIPPED = {".git", ".venv", "demo", "site", "build", "dist"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("umscosod", ("torch", "timm", "fiftyone", "cv2", "scipy", "skimage")),
        ("umscosod.types", ("torch", "timm", "fiftyone")),
        ("umscosod.config", ("torch", "timm", "fiftyone", "numpy")),
        ("umscosod.data", ("torch", "timm", "fiftyone")),
        ("umscosod.refine", ("torch", "timm", "fiftyone")),
        ("umscosod.evaluation", ("torch", "timm", "fiftyone")),
        ("umscosod.export", ("torch", "timm", "fiftyone")),
        ("umscosod.integrations.fiftyone", ("torch", "timm", "fiftyone")),
        ("umscosod.integrations.fiftyone.demo.__main__", ("torch", "timm", "fiftyone")),  # the database comes first
    ],
)
def test_import_leaves_heavy_packages_alone(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_requirements_file_equals_the_declared_dependencies() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    assert listed == PROJECT["dependencies"]


def test_one_version_everywhere() -> None:
    import umscosod

    manifest = yaml.safe_load((ROOT / "fiftyone.yml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert umscosod.__version__ == PROJECT["version"] == manifest["version"] == citation["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_citation_file_has_what_its_format_demands() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license", "type"} <= citation.keys()
    assert citation["license"] == PROJECT["license"]
    assert all(entry.keys() & {"name", "family-names"} for entry in citation["authors"])


def test_both_opencv_builds_are_one_version() -> None:
    import cv2

    window, headless = metadata.version("opencv-python"), metadata.version("opencv-python-headless")
    assert window == headless
    assert window.startswith(cv2.__version__)


def test_no_second_manifest_and_no_folder_named_plugins() -> None:
    """FiftyOne walks the whole tree for manifests, and its own built-ins are imported under the name plugins."""
    rooms = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in NOT_SHIPPED]
    nested = [file for room in rooms for file in room.rglob("fiftyone.y*ml")]
    assert (ROOT / "fiftyone.yml").is_file()
    assert nested == []
    assert not (ROOT / "plugins").exists()


def test_network_guard_stops_other_machines_and_lets_loopback_through() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"), socket.socket() as outside:
        outside.connect(("192.0.2.1", 9))  # a documentation address (RFC 5737); never reached
    with pytest.raises(pytest.fail.Exception, match=r"model-hub\.example"):
        socket.getaddrinfo("model-hub.example", 443)
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
