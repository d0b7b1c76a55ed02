"""What can be refused before any work, in seconds: settings, device, weights, checkpoint, a file of instance masks."""

from __future__ import annotations

from pathlib import Path

from umscosod.baselines.choose import PEERS
from umscosod.config import PipelineConfig
from umscosod.config_io import validate_config
from umscosod.device import resolve_device
from umscosod.features.registry import check_backbones
from umscosod.pipeline.checkpoints import take_checkpoint
from umscosod.pipeline.prepare import check_detections


def check_settings(
    config: PipelineConfig,
    *,
    checkpoint: str | Path | None = None,
    wants_masks: bool = False,
    wants_tokens: bool = True,
) -> None:
    """Refuse what a job would refuse at its door; no model is built, nothing is written.

    Parameters
    ----------
    config : PipelineConfig
    checkpoint : path, optional
        Predict with this network.
    wants_masks : bool
        Pseudo-labels will be made.
    wants_tokens : bool
        Images will be encoded.

    Raises
    ------
    ConfigError
        A setting, or a device that is not there.
    WeightsError
        Weights that were asked for are missing.
    CheckpointError
        There is none, or its ``meta.json`` is damaged.
    DataError
        The file of instance masks is missing.
    """
    validate_config(config)
    if checkpoint is not None:
        _, config = take_checkpoint(checkpoint, config)
    elif wants_masks and config.method not in PEERS:
        check_detections(config)
    device = resolve_device(config.device)
    if wants_tokens:
        check_backbones(config.features, device)
