"""The process pool gives the same masks as one process, in order, and survives what goes wrong."""

import logging
import os
import subprocess
import sys
import textwrap
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umscosod.config import CrfConfig
from umscosod.errors import DataError
from umscosod.refine.crf import CrfInput
from umscosod.refine.crf_pool import open_pool, refine_masks

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIG = CrfConfig(size_px=40, workers=2)


def start(mask, picture):
    return CrfInput(map_HW=mask.astype(np.float32), mask_HW=mask, threshold=0.5, picture_HW3=picture)


def batch(count=5):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(count)]
    masks = [np.zeros((40, 40), dtype=bool) for _ in range(count)]
    for index, mask in enumerate(masks):
        mask[index : index + 20, 5:30] = True
    return [start(mask, picture) for mask, picture in zip(masks, pictures, strict=True)]


def test_pool_equals_one_process_and_keeps_the_order():
    starts = batch()
    starts[2].mask_HW[:] = False  # nothing to do for this one
    alone = refine_masks(starts, CONFIG)
    variables = dict(os.environ)
    with open_pool(CONFIG) as pool:
        assert pool is not None
        assert dict(os.environ) == variables
        together = refine_masks(starts, CONFIG, pool)
        with pytest.raises(DataError, match="uint8 RGB"):  # an error in a worker is the caller's error
            refine_masks([replace(one, picture_HW3=one.picture_HW3 / 255.0) for one in starts], CONFIG, pool)
    assert [did_run for _, did_run in together] == [True, True, False, True, True]
    for (mask, did_run), (other, other_ran) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(mask, other)
        assert did_run == other_ran
    assert len({mask.tobytes() for mask, _ in together}) == 5


def test_a_script_without_a_main_guard_is_not_run_again_by_the_workers(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from umscosod.config import CrfConfig
            from umscosod.refine.crf import CrfInput
            from umscosod.refine.crf_pool import open_pool, refine_masks
            print("started", flush=True)
            config = CrfConfig(size_px=32, workers=2)
            mask = np.zeros((32, 32), dtype=bool)
            mask[8:24, 8:24] = True
            picture = np.zeros((32, 32, 3), dtype=np.uint8)
            one = CrfInput(map_HW=mask.astype(np.float32), mask_HW=mask, threshold=0.5, picture_HW3=picture)
            with open_pool(config) as pool:
                done = refine_masks([one] * 4, config, pool)
            print("refined", sum(did_run for _, did_run in done), flush=True)
            """
        )
    )
    out = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert out.stdout.split("\n")[:2] == ["started", "refined 4"]
    assert out.stderr == ""


@pytest.mark.parametrize("config", [CrfConfig(workers=1), CrfConfig(enabled=False, workers=4)])
def test_no_pool_where_it_would_not_help(config):
    with open_pool(config) as pool:
        assert pool is None


def test_zero_workers_is_one_per_core(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with open_pool(CrfConfig(workers=0)) as pool:
        assert pool is None


def test_no_pool_without_pydensecrf(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with open_pool(CONFIG) as pool:
        assert pool is None


def test_a_dead_worker_costs_a_warning_not_the_group(caplog):
    class Dead(Executor):
        def submit(self, fn, /, *args, **kwargs):
            raise BrokenProcessPool("killed")

    starts = batch()
    with caplog.at_level(logging.WARNING):
        survived = refine_masks(starts, CONFIG, Dead())
    assert "worker died (killed)" in caplog.text
    for (mask, _), (expected, _) in zip(survived, refine_masks(starts, CONFIG), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_maps_and_masks_must_match():
    one = batch(1)[0]
    with pytest.raises(DataError, match="one size"):
        refine_masks([replace(one, map_HW=one.map_HW[:-1])], CONFIG)
