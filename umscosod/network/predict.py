"""Inference on a whole group of any size, in memory linear in the number of images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from umscosod.device import autocast
from umscosod.network.cfmm import BLOCK_IMAGES
from umscosod.network.model import UmsNetwork
from umscosod.types import FloatArray, GroupFeatures


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
        first_NPD = _to_device(first.tokens_NPD[block], device)
        second_NQE = _to_device(second.tokens_NPD[block], device)
        fused_NPC = model.fuse(first_NPD, second_NQE, first.grid_hw, second.grid_hw)
        tokens.append(model.cfmm.compute_residual(fused_NPC) if model.config.cfmm.enabled else fused_NPC)

    responses: list[Tensor] = []
    consensus_C: Tensor | None = None
    if model.config.cfmm.enabled:
        residual_NPC = torch.cat(tokens)
        saliency_NP = _to_device(features.saliency_NP, device)
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


def _to_device(array: FloatArray, device: torch.device) -> Tensor:
    # A copy, since cached features may be read-only memory maps, which tensors must not share.
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C")).to(device)
