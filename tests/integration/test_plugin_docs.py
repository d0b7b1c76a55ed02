"""Every Python line of docs/plugin.md, run in its order on one data set."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.loopback_hub import LoopbackHub, serve_hub, set_constant, set_endpoint
from umscosod.features.hub import SETS
from umscosod.features.specs import VIT_SPECS

fo = pytest.importorskip("fiftyone")

pytestmark = [pytest.mark.mongod, pytest.mark.slow]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugin.md"


def test_the_snippets_do_what_the_page_says(
    toy_dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for mask, group in zip(*toy_dataset.values(["ground_truth.mask_path", "cls"]), strict=True):
        target = tmp_path / "theirs" / group / Path(mask).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(mask, target)
    # The preset for tests: every stage runs, nothing is learnt.
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    code = code.replace('"fast"', '"smoke"')
    names: dict[str, Any] = {"dataset": toy_dataset}
    files = {(f"timm/{VIT_SPECS[name].timm_name}", "model.safetensors"): name.encode() for name in SETS["small"]}
    set_constant(monkeypatch, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("UMSCOSOD_WEIGHTS", str(tmp_path / "weights"))
    with serve_hub(LoopbackHub(files=files)) as hub:
        set_endpoint(monkeypatch, hub.endpoint)
        exec(compile(code, str(PAGE), "exec"), names)

    toy_dataset.reload()
    assert "8 images" in capsys.readouterr().out
    keys = {run.key: run.state for run in names["cosal"].list_runs(toy_dataset)}
    assert keys == dict.fromkeys(("cosal", "quick", "pseudo", "network", "predicted", "theirs"), "complete")
    assert toy_dataset.count("theirs") == toy_dataset.count("predicted") == 8
    assert not toy_dataset.has_field("strict")
    assert not toy_dataset.has_field("refined")
    assert toy_dataset.list_evaluations() == ["eval_cosal", "eval_quick"]
    assert len(names["view"]) == names["comparison"].n_a_better
    assert names["result"]["summary"] == names["comparison"].summary
    decided = dict(zip(*toy_dataset.values(["id", "cosal_review"]), strict=True))
    accepted = {sample_id for sample_id, state in decided.items() if state == "accepted"}
    assert accepted == set(toy_dataset.exists("reviewed").values("id"))
    assert accepted  # four were; of the three that were decided about at once all is forgotten
    assert all(decided[sample_id] is None for sample_id in names["ids"])
    assert list((tmp_path / "coco").rglob("*.json"))
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 8
