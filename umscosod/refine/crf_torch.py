"""DenseCRF on an accelerator: mean field with the kernels of `umscosod.refine.crf`, in torch.

Suffixes: ``L`` labels, ``P = H * W`` pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch

from umscosod.config import CrfConfig
from umscosod.refine.crf import CrfInput, check_rgb, refine_mask
from umscosod.refine.crf_pool import Refined
from umscosod.refine.lattice import Lattice
from umscosod.types import BoolArray, ByteArray, FloatArray

logger = logging.getLogger(__name__)


def infer_in_torch(
    unary_LP: FloatArray,
    picture_HW3: ByteArray,
    config: CrfConfig,
    *,
    device: torch.device,
) -> FloatArray:
    """As `umscosod.refine.crf.infer`, by the same lattices, without pydensecrf.

    Parameters
    ----------
    unary_LP : ndarray, float32, (L, H * W)
        Energies, from `umscosod.refine.crf.build_unary`.
    picture_HW3 : ndarray, uint8, (H, W, 3)
        Red, green, blue.
    config : CrfConfig
        Reads iterations and the kernels.
    device : torch.device

    Returns
    -------
    ndarray, float32, (L, H, W), in [0, 1]
        Marginals after ``config.iterations`` steps; they sum to 1 over the labels. Equal bits in each run on one
        device; those of pydensecrf but for the rounding of float32.

    Raises
    ------
    DataError
        The picture is not uint8 (H, W, 3).
    torch.OutOfMemoryError
        The device has no room.

    Notes
    -----
    Time and memory grow with the pixels, not with their square.

    References
    ----------
    Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials",
    NIPS 2011, arXiv 1210.5644, algorithm 1.
    """
    check_rgb(picture_HW3)
    height, width = picture_HW3.shape[:2]
    with torch.inference_mode():
        energy_LP = torch.tensor(unary_LP, dtype=torch.float32, device=device)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place_P2 = torch.stack([columns, rows], dim=-1).view(-1, 2).float()
        colour_P3 = torch.tensor(picture_HW3.reshape(-1, 3), dtype=torch.float32)
        smoothness = Lattice((place_P2 / config.gaussian_xy_px).to(device))
        appearance_P5 = torch.cat([place_P2 / config.bilateral_xy_px, colour_P3 / config.bilateral_rgb], dim=1)
        appearance = Lattice(appearance_P5.to(device))

        def pull(belief_P: torch.Tensor) -> torch.Tensor:
            smooth_P, alike_P = smoothness.filter(belief_P), appearance.filter(belief_P)
            return config.gaussian_compat * smooth_P + config.bilateral_compat * alike_P

        all_P = pull(torch.ones_like(energy_LP[0]))
        belief_LP = torch.softmax(-energy_LP, dim=0)
        for _ in range(config.iterations):
            # Potts: agreement lowers a label's energy. Beliefs sum to 1, so the last label's pull is what is left.
            pulls = [pull(belief_P) for belief_P in belief_LP[:-1]]
            belief_LP = torch.softmax(torch.stack([*pulls, all_P - sum(pulls)]) - energy_LP, dim=0)
        marginals: FloatArray = belief_LP.view(-1, height, width).cpu().numpy()
        return marginals


class TorchCrf:
    """`umscosod.refine.crf_pool.Refiner` on an accelerator, one image after the other.

    Parameters
    ----------
    device : str
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._infer = partial(infer_in_torch, device=self._device)

    def refine_all(self, starts: Sequence[CrfInput], config: CrfConfig) -> Refined:
        """See `umscosod.refine.crf_pool.refine_masks`; an image that the device has no room for is done by the CPU."""
        return [self._refine(start, config) for start in starts]

    def begin(self, starts: Sequence[CrfInput], config: CrfConfig) -> Callable[[], Refined]:
        """See `umscosod.refine.crf_pool.begin_masks`: nothing is begun, as the device has room for one group."""
        return partial(self.refine_all, starts, config)

    def _refine(self, start: CrfInput, config: CrfConfig) -> tuple[BoolArray, bool, str]:
        try:
            return (*refine_mask(start, config, self._infer), "")
        except torch.OutOfMemoryError:
            _warn_full(str(self._device), config.size_px)
        # out of the handler, which would hold on to the memory
        mask_HW, did_run = refine_mask(start, config)
        return mask_HW, did_run, "" if did_run else f"{self._device} has no room for DenseCRF: its border is its map's"

    def close(self) -> None:
        """Give the memory back that torch holds in stock."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


@cache
def _warn_full(device: str, size_px: int) -> None:
    """Say it once per process: a run over thousands of images must not drown its log."""
    logger.warning(
        "%s has no room for DenseCRF at %d pixels: such images are refined by the CPU, by pydensecrf", device, size_px
    )
