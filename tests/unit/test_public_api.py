"""What ``from umscosod import ...`` offers: every name leads somewhere, and nothing is loaded before it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import umscosod

ROOT = Path(umscosod.__file__).resolve().parents[1]
PROMISED = {
    "PipelineConfig": "class",
    "evaluate": "function",
    "export_model": "function",
    "get_weights": "function",
    "groups_from_csv": "function",
    "groups_from_folder": "function",
    "groups_from_list": "function",
    "import_weights": "function",
    "label_groups": "function",
    "list_weights": "function",
    "load_config": "function",
    "load_model": "function",
    "make_pseudo_labels": "function",
    "predict": "function",
    "refine_maps": "function",
    "relabel": "function",
    "undo_relabel": "function",
    "train": "function",
    "verify_weights": "function",
}


def test_nothing_more_and_nothing_less_is_promised() -> None:
    assert set(umscosod.__all__) == {*PROMISED, "__version__"}
    assert set(umscosod.__all__) <= set(dir(umscosod))


@pytest.mark.parametrize(("name", "kind"), PROMISED.items())
def test_every_public_name_leads_to_what_bears_it(name: str, kind: str) -> None:
    found = getattr(umscosod, name)
    assert inspect.isclass(found) if kind == "class" else inspect.isfunction(found)
    assert found.__name__ == name
    assert found.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'labl_groups'"):
        _ = umscosod.labl_groups
    with pytest.raises(ImportError):
        exec("from umscosod import labl_groups")


def test_settings_and_groups_cost_no_torch() -> None:
    code = "import sys; from umscosod import evaluate, groups_from_folder, load_config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "False", done.stderr
