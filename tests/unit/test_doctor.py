"""Each check tells sound from broken from optional, and names a cure for all that is not sound."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from umscosod import doctor
from umscosod.doctor import Check
from umscosod.features.specs import VIT_SPECS


def break_import(monkeypatch: pytest.MonkeyPatch, *broken: str) -> None:
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name in broken:
            raise OSError(f"{name}: libGL.so.1: cannot open shared object file")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


def set_versions(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        if (found := versions.get(name.replace("-", "_"))) is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(doctor.metadata, "version", version)


def test_this_machine_is_sound_and_every_gap_has_a_cure() -> None:
    checks = doctor.run_checks()
    assert [check for check in checks if check.ok is False] == []
    assert all(check.message for check in checks)
    assert all(check.cure for check in checks if not check.ok)
    assert len({check.name for check in checks}) == len(checks)


def test_the_checks_do_not_import_fiftyone() -> None:
    code = "import sys; from umscosod.doctor import run_checks; run_checks(); print('fiftyone' in sys.modules)"
    root = Path(doctor.__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_two_opencv_versions_in_one_folder_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    set_versions(monkeypatch, opencv_python="5.0.0.93", opencv_python_headless="4.14.0.94")
    check = doctor.check_opencv()
    assert check.ok is False
    assert "overwrite each other" in check.message
    assert check.cure.startswith("pip uninstall -y opencv-python opencv-python-headless && pip install")


def test_opencv_that_does_not_load_names_the_system_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    set_versions(monkeypatch, opencv_python="4.14.0.94", opencv_python_headless="4.14.0.94")
    break_import(monkeypatch, "cv2")
    check = doctor.check_opencv()
    assert check.ok is False
    assert "libGL" in check.message
    assert "apt-get install libgl1" in check.cure


def test_no_opencv_at_all_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    set_versions(monkeypatch)
    check = doctor.check_opencv()
    assert check.ok is False
    assert "pip install" in check.cure


def test_a_missing_crf_is_no_fault_but_has_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    break_import(monkeypatch, "pydensecrf.densecrf")
    check = doctor.check_crf()
    assert check.ok is None
    assert "pydensecrf2" in check.cure


def test_broken_torch_is_a_fault_and_what_hangs_on_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    break_import(monkeypatch, "torch")
    check = doctor.check_torch()
    assert check.ok is False
    assert "torchvision" in check.cure
    assert doctor.check_gpu().ok is None
    assert doctor.check_weights().ok is None


@pytest.mark.parametrize(
    ("here", "ok", "says"),
    [
        ((), None, "none: features without weights"),
        (("dino_vits8",), None, "dino_vits8, but not the pair of the paper"),
        (("dino_vitb8", "dinov2_vitb14_reg"), True, "dino_vitb8, dinov2_vitb14_reg"),
    ],
)
def test_weights_are_one_line_with_the_command_for_better_ones(
    here: tuple[str, ...], ok: bool | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from umscosod.features import hub

    offers = [SimpleNamespace(name=name, path=Path(name) if name in here else None) for name in VIT_SPECS]
    monkeypatch.setattr(hub, "list_weights", lambda: offers)
    check = doctor.check_weights()
    assert check.ok is ok
    assert check.message.startswith(says)
    assert ok or check.cure.startswith("umscosod weights get paper")


def test_damaged_records_of_weights_are_a_fault_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMSCOSOD_WEIGHTS", str(tmp_path))
    (tmp_path / "records.json").write_text("{")
    check = doctor.check_weights()
    assert check.ok is False
    assert check.cure.startswith("remove that file")


def test_a_full_disk_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=doctor.LOW_DISK_BYTES - 1))
    checks = doctor.check_disk()
    assert [check.ok for check in checks] == [False, False]
    assert "prune" in checks[0].cure


def test_a_missing_database_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from umscosod.integrations import database

    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    monkeypatch.setattr(database, "find_mongod", lambda: None)
    check = doctor.check_database()
    assert check.ok is None
    assert "umscosod[mongod]" in check.cure
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://127.0.0.1:1")
    assert doctor.check_database().ok is True


def test_the_table_shows_each_cure_and_sums_up() -> None:
    checks = [
        Check(name="a", ok=True, message="fine"),
        Check(name="bb", ok=False, message="bad", cure="mend it"),
        Check(name="c", ok=None, message="absent", cure="install it"),
    ]
    lines = doctor.format_checks(checks).splitlines()
    assert lines[0].split() == ["ok", "a", "fine"]
    assert lines[1].split() == ["BROKEN", "bb", "bad"]
    assert lines[2].strip() == "cure: mend it"
    assert lines[-1] == "1 broken, 1 optional missing, 1 ok"


def test_the_plugin_is_linked_or_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from umscosod.integrations import plugin_link

    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path / "plugins"))
    missing = doctor.check_plugin()
    assert (missing.ok, missing.cure.endswith("umscosod plugin install")) == (None, True)
    link = plugin_link.install_plugin()
    assert doctor.check_plugin() == Check(
        name="FiftyOne plugin", ok=True, message=f"{link} -> {plugin_link.find_plugin_source()}"
    )
    link.unlink()
    link.symlink_to(tmp_path)
    elsewhere = doctor.check_plugin()
    assert (elsewhere.ok, elsewhere.cure) == (None, "umscosod plugin install --overwrite")
    link.unlink()
    link.mkdir()
    assert doctor.check_plugin().cure.startswith("move it away")
