"""What ``from umscosod import ...`` offers: every name leads somewhere, and nothing is loaded before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import umscosod

ROOT = Path(umscosod.__file__).resolve().parents[1]
PIPELINE = {"label_groups", "load_model", "make_pseudo_labels", "predict", "refine_maps", "train"}


@pytest.mark.parametrize("name", sorted(set(umscosod.__all__) - PIPELINE))
def test_every_public_name_leads_somewhere(name: str) -> None:
    assert getattr(umscosod, name) is getattr(umscosod, name)
    assert name in dir(umscosod)


@pytest.mark.parametrize("name", sorted(PIPELINE))
def test_every_stage_can_be_called(name: str) -> None:
    assert callable(getattr(umscosod, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'labl_groups'"):
        _ = umscosod.labl_groups
    with pytest.raises(ImportError):
        exec("from umscosod import labl_groups")


def test_settings_and_groups_cost_no_torch() -> None:
    code = "import sys; from umscosod import evaluate, groups_from_folder, load_config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "False", done.stderr
