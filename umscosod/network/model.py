"""The UMS network: AFMM, CFMM, FRAM and decoder composed; only the head, never the frozen backbones.

`predict_maps` is inference on a whole group of any size, in memory linear in the number of images.

Shapes: ``N`` images of a group, ``P = h * w`` patches of the first stream's grid, ``Q`` patches of the second's,
``D E`` widths of the two streams, ``C`` common width, ``H W`` pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from umscosod.config import NetworkConfig
from umscosod.device import autocast, derive_seed
from umscosod.errors import DataError
from umscosod.network.afmm import HEADS, Afmm
from umscosod.network.cfmm import BLOCK_IMAGES, Cfmm
from umscosod.network.decoder import Decoder, resize_maps
from umscosod.network.fram import Fram
from umscosod.types import FloatArray, GroupFeatures


def common_width(dim_first: int, dim_second: int, most: int = 0) -> int:
    """Width both streams are brought to (spec A0).

    The larger of the two, but no more than `most` unless that is 0, rounded up to a multiple of AFMM's heads.

    Examples
    --------
    >>> common_width(768, 768), common_width(384, 50), common_width(50, 50), common_width(768, 384, 128)
    (768, 384, 52, 128)
    """
    widest = max(dim_first, dim_second)
    return -(-(min(widest, most) if most else widest) // HEADS) * HEADS


def resize_tokens(tokens_NQE: Tensor, grid_hw: tuple[int, int], new_hw: tuple[int, int]) -> Tensor:
    """Resize a token grid bilinearly, align_corners false; ``(N, Q, E)`` to ``(N, P, E)``."""
    if grid_hw == new_hw:
        return tokens_NQE
    grid_NEhw = tokens_NQE.transpose(1, 2).reshape(tokens_NQE.shape[0], -1, *grid_hw)
    return resize_maps(grid_NEhw, new_hw).flatten(2).transpose(1, 2)


class UmsNetwork(nn.Module):
    """The trainable head over two frozen token streams.

    Parameters
    ----------
    config : NetworkConfig
    dim_first, dim_second : int
        Token widths. A stream that is not as wide as the common width gets a trainable 1x1 projection; equal widths
        add no layer.
    """

    def __init__(self, config: NetworkConfig, dim_first: int, dim_second: int) -> None:
        super().__init__()
        self.config = config
        self.dim_first, self.dim_second = dim_first, dim_second
        self.dim = common_width(dim_first, dim_second, config.max_width)
        self.project_first = nn.Identity() if dim_first == self.dim else nn.Linear(dim_first, self.dim)
        self.project_second = nn.Identity() if dim_second == self.dim else nn.Linear(dim_second, self.dim)
        self.afmm = Afmm(self.dim, config.afmm)
        self.cfmm = Cfmm(self.dim, config.cfmm)
        self.fram = Fram(self.dim, config.fram)
        self.decoder = Decoder(self.dim, config.decoder)

    def fuse(
        self, first_NPD: Tensor, second_NQE: Tensor, grid_hw: tuple[int, int], second_grid_hw: tuple[int, int]
    ) -> Tensor:
        """Bring both streams to one grid and width and mix them (AFMM); ``(N, P, C)``, image by image independent.

        Raises
        ------
        DataError
            Widths, patch counts or image counts do not fit this network.
        """
        expected = (
            (first_NPD.shape[0], grid_hw[0] * grid_hw[1], self.dim_first),
            (first_NPD.shape[0], second_grid_hw[0] * second_grid_hw[1], self.dim_second),
        )
        got = (tuple(first_NPD.shape), tuple(second_NQE.shape))
        if got != expected:
            raise DataError(
                f"token streams of shape {got} do not fit this network, which expects {expected} "
                f"(images, patches, width); were they made by the backbones it was trained on?"
            )
        # A projection commutes with the resize and is cheaper on the coarser grid.
        second_NPC = resize_tokens(self.project_second(second_NQE), second_grid_hw, grid_hw)
        fused_NPC: Tensor = self.afmm(self.project_first(first_NPD), second_NPC)
        return fused_NPC

    def decode(
        self,
        merged_NPC: Tensor,
        grid_hw: tuple[int, int],
        out_hw: tuple[int, int],
        pictures_NHW3: Tensor | None,
        *,
        last_only: bool = False,
    ) -> tuple[Tensor, ...]:
        """Refine (FRAM) and decode to logits; image by image independent (see `Decoder.forward`)."""
        enriched_NPC = self.fram(merged_NPC, grid_hw)
        logits: tuple[Tensor, ...] = self.decoder(enriched_NPC, grid_hw, out_hw, pictures_NHW3, last_only=last_only)
        return logits

    def forward(
        self,
        first_NPD: Tensor,
        second_NQE: Tensor,
        saliency_NP: Tensor,
        grid_hw: tuple[int, int],
        second_grid_hw: tuple[int, int],
        out_hw: tuple[int, int],
        pictures_NHW3: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Predict co-saliency logits of one group.

        Parameters
        ----------
        first_NPD : Tensor, float, (N, P, D)
        second_NQE : Tensor, float, (N, Q, E)
        saliency_NP : Tensor, float, (N, P), in [0, 1]
            Self-attention maps on the first grid.
        grid_hw, second_grid_hw, out_hw : (int, int)
            First grid, second grid, output size.
        pictures_NHW3 : Tensor, uint8, (N, H', W', 3), optional
            Needed with ``decoder.picture``.

        Returns
        -------
        tuple of Tensor, (N, 1, H, W)
            Three supervised logit maps, coarse to fine; the last is the prediction.
        """
        fused_NPC = self.fuse(first_NPD, second_NQE, grid_hw, second_grid_hw)
        merged_NPC = self.cfmm(fused_NPC, saliency_NP)
        return self.decode(merged_NPC, grid_hw, out_hw, pictures_NHW3)


def build_network(config: NetworkConfig, dim_first: int, dim_second: int, seed: int) -> UmsNetwork:
    """Build a network whose initial weights are a function of the seed alone.

    The global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "network", "init"))
        return UmsNetwork(config, dim_first, dim_second)


def predict_maps(model: UmsNetwork, features: GroupFeatures, device: torch.device) -> npt.NDArray[np.float32]:
    """Predict the soft co-saliency map of every image of a group.

    AFMM, FRAM and decoder see one block of `BLOCK_IMAGES` images at a time; images meet only in CFMM's key
    points and mean. The result equals the forward pass over the whole group (to rounding), without its memory.

    Parameters
    ----------
    model : UmsNetwork
        Is moved to `device`; its training mode is left as it was.
    features : GroupFeatures
    device : torch.device

    Returns
    -------
    ndarray, float32, (N, H, W), in [0, 1]
        At the size of ``features.pictures_NHW3``.

    Raises
    ------
    umscosod.errors.DataError
        The tokens do not fit this network.
    """
    was_training = model.training
    model.eval().to(device)
    try:
        with torch.inference_mode(), autocast(device):
            return _predict_blocks(model, features, device)
    finally:
        model.train(was_training)


def _predict_blocks(model: UmsNetwork, features: GroupFeatures, device: torch.device) -> npt.NDArray[np.float32]:
    count, height, width = features.pictures_NHW3.shape[:3]
    blocks = [slice(start, start + BLOCK_IMAGES) for start in range(0, count, BLOCK_IMAGES)]
    first, second = features.first, features.second

    tokens: list[Tensor] = []
    for block in blocks:
        first_NPD = to_device(first.tokens_NPD[block], device)
        second_NQE = to_device(second.tokens_NPD[block], device)
        fused_NPC = model.fuse(first_NPD, second_NQE, first.grid_hw, second.grid_hw)
        tokens.append(model.cfmm.compute_residual(fused_NPC) if model.config.cfmm.enabled else fused_NPC)

    responses: list[Tensor] = []
    consensus_C: Tensor | None = None
    if model.config.cfmm.enabled:
        residual_NPC = torch.cat(tokens)
        saliency_NP = to_device(features.saliency_NP, device)
        seeds_N = model.cfmm.compute_seeds(residual_NPC, saliency_NP)
        key_points_KC = model.cfmm.compute_key_points(residual_NPC, seeds_N)
        tokens = [residual_NPC[block] for block in blocks]
        responses = [model.cfmm.compute_response(block_NPC, key_points_KC) for block_NPC in tokens]
        sums = [model.cfmm.sum_per_image(*pair) for pair in zip(tokens, responses, strict=True)]
        consensus_C = model.cfmm.compute_consensus(torch.cat(sums), residual_NPC.shape[1])

    maps_NHW = np.empty((count, height, width), dtype=np.float32)
    for index, block in enumerate(blocks):
        merged_NPC = tokens[index]
        if consensus_C is not None:
            merged_NPC = model.cfmm.merge(merged_NPC, responses[index], consensus_C)
        pictures_NHW3 = None
        if model.config.decoder.picture:
            pictures_NHW3 = torch.from_numpy(np.array(features.pictures_NHW3[block], order="C")).to(device)
        logits = model.decode(merged_NPC, first.grid_hw, (height, width), pictures_NHW3, last_only=True)[-1]
        maps_NHW[block] = logits.squeeze(1).float().sigmoid().cpu().numpy()
    return maps_NHW


def to_device(array: FloatArray, device: torch.device) -> Tensor:
    """Make a float32 tensor: a copy, since cached features may be read-only, and tensors must not share such."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C")).to(device)
