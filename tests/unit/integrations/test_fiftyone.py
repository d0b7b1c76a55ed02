"""What ``from umscosod.integrations.fiftyone import ...`` offers, and that nothing is loaded before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import umscosod.integrations.fiftyone as integration

ROOT = Path(__file__).resolve().parents[3]


def test_every_public_name_leads_to_its_module() -> None:
    pytest.importorskip("fiftyone")
    assert "label_dataset" in integration.__all__
    for name in integration.__all__:
        assert getattr(integration, name).__module__ == f"{integration.__name__}.{integration._HOMES[name]}"
        assert name in dir(integration)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'label_datasets'"):
        _ = integration.label_datasets


def test_the_package_costs_neither_fiftyone_nor_torch() -> None:
    code = "import sys, umscosod.integrations.fiftyone; print({'fiftyone', 'torch'} & set(sys.modules) or 'neither')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "neither", done.stderr
