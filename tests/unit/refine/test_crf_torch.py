"""DenseCRF in torch: against pydensecrf and exact mean field, in the place of the processes, out of memory.

All on the CPU, where torch does the same operations, but for the last test.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
import skimage.filters
import torch

from tests.unit.refine.exact_crf import infer_exactly
from umscosod.config import CrfConfig
from umscosod.config.io import load_config
from umscosod.config.schema import settings
from umscosod.errors import DataError
from umscosod.refine import crf as crf_module
from umscosod.refine import crf_torch
from umscosod.refine.crf import CrfInput, build_unary, refine_mask
from umscosod.refine.crf_pool import open_pool, refine_masks
from umscosod.refine.crf_torch import TorchCrf, infer_in_torch
from umscosod.types import BoolArray, ByteArray, FloatArray

CPU = torch.device("cpu")
PAPER = load_config("paper").refine.crf
# To pydensecrf. Measured: 7e-6 for 20 steps at the defaults, 5e-4 at the weights of the paper, which amplify rounding.
SOFT, HARD = CrfConfig(iterations=20), CrfConfig(iterations=20, unary="hard")  # at one size
TOLERANCES = [(SOFT, 5e-5), (HARD, 5e-5), (PAPER, 5e-3)]
SIZES = [(24, 24), (17, 31), (31, 17), (1, 40), (40, 1), (1, 1)]


def photograph(height: int, width: int, name: str = "astronaut") -> ByteArray:
    whole = getattr(skimage.data, name)()
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)).reshape(height, width, 3)


def smooth_noise(height: int, width: int) -> FloatArray:
    """In [0, 1], unsure nearly everywhere: there every constant shows."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).random((height, width)), (0, 0), max(1.0, height / 12))
    noise = noise.reshape(height, width) - noise.min()
    return np.asarray(noise / max(noise.max(), 1e-9))


def unary_of(config: CrfConfig, height: int, width: int) -> FloatArray:
    probability_HW = smooth_noise(height, width)
    low, high = 1.0 - config.confidence, config.confidence
    if config.unary == "hard":
        return build_unary(np.where(probability_HW > 0.5, high, low))
    return build_unary(np.clip(probability_HW, low, high))


def start_of(size_px: int, name: str) -> CrfInput:
    """A photograph and a map of what is bright in it, too coarse for its borders."""
    picture_HW3 = photograph(size_px, size_px, name)
    grey_HW = cv2.GaussianBlur(cv2.cvtColor(picture_HW3, cv2.COLOR_RGB2GRAY), (0, 0), size_px / 20).astype(np.float32)
    map_HW = np.clip(0.5 + (grey_HW - skimage.filters.threshold_otsu(grey_HW)) / 100.0, 0.0, 1.0)
    return CrfInput(map_HW=map_HW, mask_HW=map_HW >= 0.5, threshold=0.5, picture_HW3=picture_HW3)


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize(("config", "tolerance"), TOLERANCES, ids=["soft", "hard", "paper"])
def test_marginals_are_those_of_pydensecrf(config: CrfConfig, tolerance: float, size_hw: tuple[int, int]) -> None:
    pytest.importorskip("pydensecrf")
    unary_LP, picture_HW3 = unary_of(config, *size_hw), photograph(*size_hw)
    found_LHW = infer_in_torch(unary_LP, picture_HW3, config, device=CPU)
    assert found_LHW.dtype == np.float32
    np.testing.assert_allclose(found_LHW, crf_module.infer(unary_LP, picture_HW3, config), atol=tolerance)
    np.testing.assert_allclose(found_LHW.sum(axis=0), 1.0, atol=1e-6)


@pytest.mark.parametrize("size_hw", [(24, 24), (17, 31), (31, 17), (56, 40)])
@pytest.mark.parametrize("config", [SOFT, HARD, PAPER], ids=["soft", "hard", "paper"])
def test_labels_agree_with_exact_mean_field(config: CrfConfig, size_hw: tuple[int, int]) -> None:
    # Measured: 0.976 at least. The lattice approximates, here as in pydensecrf (tests/unit/refine/test_crf.py).
    unary_LP, picture_HW3 = unary_of(config, *size_hw), photograph(*size_hw)
    found_LHW = infer_in_torch(unary_LP, picture_HW3, config, device=CPU)
    exact_LHW = infer_exactly(unary_LP, picture_HW3, config)
    assert ((found_LHW[1] > found_LHW[0]) == (exact_LHW[1] > exact_LHW[0])).mean() >= 0.96


def test_one_weak_step_shows_every_constant() -> None:
    config = CrfConfig(
        iterations=1, gaussian_xy_px=2, gaussian_compat=1.5, bilateral_xy_px=5, bilateral_rgb=60, bilateral_compat=0.8
    )
    unary_LP, picture_HW3 = unary_of(config, 20, 26), photograph(20, 26)
    found_LHW = infer_in_torch(unary_LP, picture_HW3, config, device=CPU)
    exact_LHW = infer_exactly(unary_LP, picture_HW3, config)
    assert exact_LHW.std() > 0.1
    assert np.abs(found_LHW - exact_LHW).mean() < 0.02
    for name in ("gaussian_xy_px", "gaussian_compat", "bilateral_xy_px", "bilateral_rgb", "bilateral_compat"):
        other = replace(config, **{name: 1.1 * getattr(config, name)})
        assert np.abs(infer_in_torch(unary_LP, picture_HW3, other, device=CPU) - found_LHW).max() > 1e-4, name


def test_three_labels_share_the_belief() -> None:
    pytest.importorskip("pydensecrf")
    config = CrfConfig(iterations=3)
    unary_LP = np.random.default_rng(1).random((3, 12 * 9)).astype(np.float32)
    picture_HW3 = photograph(12, 9)
    found_LHW = infer_in_torch(unary_LP, picture_HW3, config, device=CPU)
    np.testing.assert_allclose(found_LHW, crf_module.infer(unary_LP, picture_HW3, config), atol=5e-5)


def test_two_runs_give_equal_bits() -> None:
    unary_LP, picture_HW3 = unary_of(PAPER, 56, 40), photograph(56, 40)
    first, second = (infer_in_torch(unary_LP, picture_HW3, PAPER, device=CPU) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_no_corner_of_the_bounds_gives_a_number_that_is_none() -> None:
    names = ("gaussian_xy_px", "gaussian_compat", "bilateral_xy_px", "bilateral_rgb", "bilateral_compat")
    picture_HW3 = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    unary_LP = unary_of(CrfConfig(), 32, 32)
    for values in itertools.product(*(settings()[f"refine.crf.{name}"].limits for name in names)):
        config = CrfConfig(iterations=2, **{name: limit for name, (_, limit) in zip(names, values, strict=True)})
        assert np.isfinite(infer_in_torch(unary_LP, picture_HW3, config, device=CPU)).all(), values


def test_pictures_that_are_not_uint8_rgb_are_refused() -> None:
    with pytest.raises(DataError, match="uint8 RGB"):
        infer_in_torch(unary_of(CrfConfig(), 8, 8), photograph(8, 8) / 255.0, CrfConfig(), device=CPU)


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
@pytest.mark.parametrize("config", [CrfConfig(), PAPER], ids=["fast", "paper"])
def test_masks_of_photographs_are_those_of_pydensecrf(name: str, config: CrfConfig) -> None:
    pytest.importorskip("pydensecrf")
    start = start_of(config.size_px, name)
    (ours_HW, did_run, failure), (theirs_HW, *_) = (
        refine_masks([start], config, by)[0] for by in (TorchCrf("cpu"), None)
    )
    assert (did_run, failure) == (True, "")
    assert (theirs_HW != start.mask_HW).sum() > 100
    # Measured: no pixel differs. Another processor may round a border pixel the other way.
    assert (ours_HW & theirs_HW).sum() / (ours_HW | theirs_HW).sum() >= 0.999


def test_cuda_takes_the_place_of_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a process was opened")

    monkeypatch.setattr("umscosod.refine.crf_pool.WorkerPool", refuse)
    config = CrfConfig(workers=4)
    for device in ("cuda", "cuda:0"):
        with open_pool(config, 8, device) as refiner:
            assert isinstance(refiner, TorchCrf)
    with open_pool(replace(config, enabled=False), 8, "cuda") as refiner:
        assert refiner is None
    with pytest.raises(AssertionError, match="a process was opened"), open_pool(config, 8, "cpu"):
        pass


def test_it_needs_no_pydensecrf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    start, config = start_of(32, "coffee"), CrfConfig(size_px=32)
    (mask_HW, did_run, _) = TorchCrf("cpu").refine_all([start], config)[0]
    assert did_run
    assert mask_HW.shape == (32, 32)


def out_of_memory(*_: object, **__: object) -> FloatArray:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_image_without_room_is_refined_by_the_cpu_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts, config = [start_of(32, name) for name in ("coffee", "chelsea")], CrfConfig(size_px=32)
    crf_torch._warn_full.cache_clear()
    monkeypatch.setattr(crf_torch, "infer_in_torch", out_of_memory)
    with caplog.at_level(logging.WARNING):
        found = TorchCrf("cpu").refine_all(starts, config)
    for one, other in zip(found, refine_masks(starts, config), strict=True):
        assert one[1:] == other[1:] == (True, "")
        np.testing.assert_array_equal(one[0], other[0])
    assert [record.message for record in caplog.records] == [
        "cpu has no room for DenseCRF at 32 pixels: such images are refined by the CPU, by pydensecrf"
    ]


def test_without_room_and_without_pydensecrf_the_mask_stays_and_both_are_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crf_torch._warn_full.cache_clear()
    crf_module._warn_missing.cache_clear()
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    monkeypatch.setattr(crf_torch, "infer_in_torch", out_of_memory)
    start = start_of(32, "coffee")
    with caplog.at_level(logging.WARNING):
        assert TorchCrf("cpu").refine_all([start], CrfConfig(size_px=32)) == [
            (start.mask_HW, False, "cpu has no room for DenseCRF: its border is its map's")
        ]
    assert ["no room" in record.message for record in caplog.records] == [True, False]
    assert "pip install pydensecrf2" in caplog.text


def test_another_error_is_no_reason_to_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> FloatArray:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(crf_torch, "infer_in_torch", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        TorchCrf("cpu").refine_all([start_of(32, "coffee")], CrfConfig(size_px=32))


def test_the_unary_is_that_of_the_cpu_form() -> None:
    """Both forms are given the same energies and picture."""
    seen: list[tuple[FloatArray, ByteArray]] = []

    def keep(infer: Callable[..., FloatArray]) -> crf_module.InferFn:
        def run(unary_LP: FloatArray, picture_HW3: ByteArray, config: CrfConfig) -> FloatArray:
            seen.append((unary_LP, picture_HW3))
            return infer(unary_LP, picture_HW3, config)

        return run

    start, config = start_of(40, "coffee"), CrfConfig(size_px=32)
    masks: Sequence[BoolArray] = [
        refine_mask(start, config, keep(infer))[0]
        for infer in (crf_module.infer, lambda *given: infer_in_torch(*given, device=CPU))
    ]
    assert all(mask_HW.shape == (32, 32) for mask_HW in masks)
    assert [picture_HW3.shape for _, picture_HW3 in seen] == [(16, 16, 3)] * 2
    for one, other in zip(*seen, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_the_cpu_and_with_itself() -> None:
    cuda, config = torch.device("cuda"), SOFT
    unary_LP, picture_HW3 = unary_of(config, 56, 40), photograph(56, 40)
    first, second = (infer_in_torch(unary_LP, picture_HW3, config, device=cuda) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, infer_in_torch(unary_LP, picture_HW3, config, device=CPU), atol=5e-5)
