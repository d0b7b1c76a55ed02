"""The process pool gives the same masks as one process, in order, and survives what goes wrong."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.processes import find_marked, wait_until, wait_until_gone
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


FRAGILE = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from umscosod import workers
from umscosod.refine import crf
refine = crf.refine_mask
crf.refine_mask = lambda start, config: os.abort() if start.threshold == 0.25 else refine(start, config)
workers.main()
"""
PARENT = """
import sys
import numpy as np
from umscosod.config import CrfConfig
from umscosod.refine.crf import CrfInput
from umscosod.refine.crf_pool import open_pool, refine_masks
config = CrfConfig(size_px=224, iterations=100, bilateral_rgb=1.0, workers=2)
mask = np.zeros((256, 256), dtype=bool)
mask[8:24, 8:24] = True
picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
one = CrfInput(map_HW=mask.astype(np.float32), mask_HW=mask, threshold=0.5, picture_HW3=picture)
with open_pool(config) as pool:
    if sys.argv[1] != "booting":
        refine_masks([one] * 2, CrfConfig(size_px=32), pool)
    print("reached", flush=True)
    if sys.argv[1] == "working":
        refine_masks([one] * 1000, config, pool)
    sys.stdin.read()
"""


def list_workers(pool):
    return pool.pool._workers


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
    assert [did_run for _, did_run, _ in together] == [True, True, False, True, True]
    for (mask, did_run, _), (other, other_ran, _) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(mask, other)
        assert did_run == other_ran
    assert len({mask.tobytes() for mask, *_ in together}) == 5


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
            print("refined", sum(did_run for _, did_run, _ in done), flush=True)
            """
        )
    )
    out = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
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
    monkeypatch.setattr("umscosod.refine.crf_pool.count_cores", lambda: 1)
    with open_pool(CrfConfig(workers=0)) as pool:
        assert pool is None


def test_no_pool_without_pydensecrf(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with open_pool(CONFIG) as pool:
        assert pool is None


def same(some, others):
    return all(
        np.array_equal(mask, other) and ran == did for (mask, ran, _), (other, did, _) in zip(some, others, strict=True)
    )


def test_a_dead_worker_costs_a_warning_not_its_image(caplog):
    starts = batch()
    with open_pool(CONFIG) as pool:
        for worker in list_workers(pool):
            worker.process.kill()
            worker.process.wait()
        survived = refine_masks(starts, CONFIG, pool)
    assert "a worker process died (SIGKILL): its work is tried in a fresh one" in caplog.text
    assert same(survived, refine_masks(starts, CONFIG))
    assert {failure for *_, failure in survived} == {""}


def test_an_image_that_kills_every_worker_keeps_its_mask_and_says_why(caplog, monkeypatch):
    """The toy's workers die of a threshold of 0.25, as DenseCRF's memory does of some inputs."""
    monkeypatch.setattr("umscosod.workers._PROGRAM", FRAGILE)
    starts = batch()
    starts[3] = replace(starts[3], threshold=0.25)
    with open_pool(CONFIG, len(starts)) as pool:
        survived = refine_masks(starts, CONFIG, pool)
        again = refine_masks(starts[:3], CONFIG, pool)
    assert survived[3] == (starts[3].mask_HW, False, "DenseCRF died on it (SIGABRT): its border is that of its map")
    assert "a DenseCRF worker died (SIGABRT): its mask is left as it is, see its reason" in caplog.text
    sound = starts[:3] + starts[4:]
    assert same(survived[:3] + survived[4:], refine_masks(sound, CONFIG))
    assert same(again, survived[:3])


def test_no_more_workers_than_images_or_cores_given(monkeypatch):
    with open_pool(CrfConfig(workers=64), 3) as pool:
        assert pool.pool.count == 3
    with open_pool(CONFIG, 1) as pool:
        assert pool is None
    monkeypatch.setattr("umscosod.refine.crf_pool.count_cores", lambda: 2)
    with open_pool(CrfConfig(workers=0)) as pool:
        assert pool.pool.count == 2


def test_nothing_of_this_process_is_changed_and_any_thread_may_open_a_pool():
    before = (dict(os.environ), sys.modules["__main__"], list(sys.path))
    caught = []

    def work():
        with open_pool(CONFIG) as pool:
            caught.append((dict(os.environ), sys.modules["__main__"], list(sys.path)))
            caught.append(refine_masks(batch(), CONFIG, pool))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught[0] == before
    assert same(caught[1], refine_masks(batch(), CONFIG))


def test_two_threads_may_share_a_pool():
    expected = refine_masks(batch(), CONFIG)
    with open_pool(CONFIG) as pool, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: refine_masks(batch(), CONFIG, pool), range(4)))
    assert all(same(one, expected) for one in found)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["booting", "idle", "working"])
def test_workers_end_with_their_parent_however_it_dies_and_hold_none_of_its_streams(number, moment):
    mark = f"UMSCOSOD_TEST_MARK={uuid.uuid4().hex}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **dict([mark.split("=")])}
    line = [sys.executable, "-c", PARENT, moment]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(line, **streams, env=environment) as parent:
        assert parent.stdout.readline() == b"reached\n"
        assert wait_until(lambda: len(find_marked(mark)) == 3)  # one that is just starting has no environment yet
        os.kill(parent.pid, number)
        parent.stdout.read()  # returns once nobody holds the other end
    assert parent.returncode
    assert wait_until_gone(mark) == []


def test_maps_and_masks_must_match():
    one = batch(1)[0]
    with pytest.raises(DataError, match="one size"):
        refine_masks([replace(one, map_HW=one.map_HW[:-1])], CONFIG)
