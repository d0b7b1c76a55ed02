"""DenseCRF on an accelerator: mean field with the kernels of `umscosod.refine.crf`, exact, in torch.

Suffixes: ``L`` labels, ``P = H * W`` pixels, ``B`` pixels of a block.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cache, partial

import torch

from umscosod.config import CrfConfig
from umscosod.refine.crf import CrfInput, check_rgb, refine_mask
from umscosod.types import BoolArray, ByteArray, FloatArray

logger = logging.getLogger(__name__)

BLOCK_BYTES = 256 * 2**20  # of the appearance kernel that are computed at a time
_KEPT_SHARE = 0.5  # of an accelerator's free memory, for blocks that are not computed again in each step


def infer_in_torch(
    unary_LP: FloatArray,
    picture_HW3: ByteArray,
    config: CrfConfig,
    device: torch.device,
    *,
    block_bytes: int = BLOCK_BYTES,
    kept_bytes: int | None = None,
) -> FloatArray:
    """As `umscosod.refine.crf.infer`, without its approximation: no lattice, every pair of pixels counts.

    Parameters
    ----------
    unary_LP : ndarray, float32, (L, H * W)
        Energies, from `umscosod.refine.crf.build_unary`.
    picture_HW3 : ndarray, uint8, (H, W, 3)
        Red, green, blue.
    config : CrfConfig
    device : torch.device
    block_bytes : int
        Of the appearance kernel that are computed at a time; at least one row, 4 * H * W bytes, is.
    kept_bytes : int, optional
        Of the appearance kernel that are kept for all steps; the others are computed anew in each. By default half of
        the free memory of a CUDA device, elsewhere one block. It does not change the result.

    Returns
    -------
    ndarray, float32, (L, H, W), in [0, 1]
        Marginals after ``config.iterations`` steps; they sum to 1 over the labels. Equal bits in each run on one
        device; within 1e-4 of the marginals in float64.

    Raises
    ------
    DataError
        The picture is not uint8 (H, W, 3).
    torch.OutOfMemoryError
        The device has no room.

    Notes
    -----
    The time grows with the square of the pixels: each step reads the kept kernel once, 4 * (H * W)^2 bytes.

    References
    ----------
    Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials",
    NIPS 2011, arXiv 1210.5644, algorithm 1.
    """
    check_rgb(picture_HW3)
    height, width = picture_HW3.shape[:2]
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):  # a caller's may be on
        energy_LP = torch.tensor(unary_LP, dtype=torch.float32, device=device)
        y_HH, x_WW = (_smoothness(side, config.gaussian_xy_px).to(device) for side in (height, width))
        kept = _spare_bytes(device) if kept_bytes is None else kept_bytes
        appearance = _Appearance(picture_HW3, config, device, block_bytes, kept)
        belief_LP = torch.softmax(-energy_LP, dim=0)
        for _ in range(config.iterations):
            smooth_LP = (y_HH @ belief_LP.view(-1, height, width) @ x_WW).view_as(belief_LP)
            pull_LP = config.gaussian_compat * smooth_LP + config.bilateral_compat * appearance.filter(belief_LP)
            belief_LP = torch.softmax(pull_LP - energy_LP, dim=0)  # Potts: agreement lowers a label's energy
        marginals: FloatArray = belief_LP.view(-1, height, width).cpu().numpy()
        return marginals


def _spare_bytes(device: torch.device) -> int:
    """Bytes for what is kept between steps."""
    if device.type != "cuda":
        return BLOCK_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # what torch holds in stock
    return int(_KEPT_SHARE * free)


def _log_gaussian(side: int, deviation: float) -> torch.Tensor:
    """Logarithms of a Gaussian over all pairs of places on a line, float64, (side, side)."""
    place = torch.arange(side, dtype=torch.float64)
    return (place[:, None] - place).square() / (-2.0 * deviation**2)


def _smoothness(side: int, deviation: float) -> torch.Tensor:
    """D^-1/2 K D^-1/2 of one axis, float32, (side, side): the smoothness kernel is the product of both axes."""
    kernel = _log_gaussian(side, deviation).exp()
    norm = kernel.sum(dim=1).rsqrt()
    return (norm[:, None] * kernel * norm).float()


class _Appearance:
    """The appearance kernel, D^-1/2 K D^-1/2, K a Gaussian over place and colour, D its row sums."""

    def __init__(
        self, picture_HW3: ByteArray, config: CrfConfig, device: torch.device, block_bytes: int, kept_bytes: int
    ) -> None:
        height, width = picture_HW3.shape[:2]
        self._size_hw, self._pixels = (height, width), height * width
        self._y_HH, self._x_WW = (
            _log_gaussian(side, config.bilateral_xy_px).float().to(device) for side in (height, width)
        )
        self._precision = 0.5 / config.bilateral_rgb**2
        self._left_PF, self._right_PF = _colour_factors(torch.tensor(picture_HW3.reshape(-1, 3), device=device))
        step = max(1, block_bytes // (4 * self._pixels))
        self._starts = range(0, self._pixels, step)
        n_kept = min(len(self._starts), kept_bytes // (4 * step * self._pixels))
        self._kept = [self._compute_block(start) for start in self._starts[:n_kept]]
        self._norm_P = self._times(torch.ones(self._pixels, device=device)).rsqrt()
        self._total_P = self._norm_P * self._times(self._norm_P)

    def _compute_block(self, start: int) -> torch.Tensor:
        """Some rows of K, float32, (B, P)."""
        pixels_B = torch.arange(start, min(start + self._starts.step, self._pixels), device=self._y_HH.device)
        block_BP = self._left_PF[pixels_B] @ self._right_PF.T
        block_BHW = block_BP.view(len(pixels_B), *self._size_hw)
        width = self._size_hw[1]
        # not as alpha of one addmm: where a BLAS scales a factor first, its product is not exact any more
        x_B1W, y_BH1 = self._x_WW[pixels_B % width, None, :], self._y_HH[pixels_B // width, :, None]
        torch.add(x_B1W, block_BHW, alpha=self._precision, out=block_BHW)
        block_BHW.add_(y_BH1).exp_()
        return block_BP

    def _iter_blocks(self) -> Iterator[torch.Tensor]:
        yield from self._kept
        for start in self._starts[len(self._kept) :]:
            yield self._compute_block(start)

    def _times(self, values_P: torch.Tensor) -> torch.Tensor:
        return torch.cat([block_BP @ values_P for block_BP in self._iter_blocks()])

    def filter(self, belief_LP: torch.Tensor) -> torch.Tensor:
        """Apply the kernel to beliefs, float32, (L, P), that sum to 1 over the labels: the last is what is left."""
        parts = [self._norm_P * self._times(self._norm_P * belief_P) for belief_P in belief_LP[:-1]]
        return torch.stack([*parts, self._total_P - sum(parts)])


def _colour_factors(colours_P3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices, float32, (P, 7), whose product is minus the squared distance of all pairs of colours.

    It is exact: all products are integers below 2^17, all sums below 2^18, and no factor has more than 9 bits, so that
    a caller's TF32 does no harm either. Squares are therefore in two parts.
    """
    colours_P3 = colours_P3.int() - 128
    squares_P1 = colours_P3.square().sum(dim=1, keepdim=True)
    high_P1, low_P1, one_P1 = squares_P1 // 256, squares_P1 % 256, torch.ones_like(squares_P1)
    left_PF = torch.cat([2 * colours_P3, high_P1, low_P1, -256 * one_P1, -one_P1], dim=1)
    right_PF = torch.cat([colours_P3, -256 * one_P1, -one_P1, high_P1, low_P1], dim=1)
    return left_PF.float(), right_PF.float()


class TorchCrf:
    """`umscosod.refine.crf_pool.Refiner` on an accelerator, one image after the other.

    Parameters
    ----------
    device : str
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._infer = partial(infer_in_torch, device=self._device)

    def refine_all(self, starts: Sequence[CrfInput], config: CrfConfig) -> list[tuple[BoolArray, bool, str]]:
        """See `umscosod.refine.crf_pool.refine_masks`; an image that the device has no room for is done by the CPU."""
        return [(*self._refine(start, config), "") for start in starts]

    def _refine(self, start: CrfInput, config: CrfConfig) -> tuple[BoolArray, bool]:
        try:
            return refine_mask(start, config, self._infer)
        except torch.OutOfMemoryError:
            _warn_full(str(self._device), config.size_px)
        return refine_mask(start, config)  # out of the handler, which would hold on to the memory

    def stop(self) -> None:
        """Give the memory back that torch holds in stock."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


@cache
def _warn_full(device: str, size_px: int) -> None:
    """Say it once per process: a run over thousands of images must not drown its log."""
    logger.warning(
        "%s has no room for DenseCRF at %d pixels: such images are refined by the CPU, by pydensecrf", device, size_px
    )
