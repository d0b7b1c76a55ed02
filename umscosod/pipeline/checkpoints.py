"""What the pipeline asks of a checkpoint and adds to it: calibration, whitening, the probe, backbones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from umscosod.baselines import BASELINES
from umscosod.config import FeaturesConfig, PipelineConfig
from umscosod.config.io import validate_config
from umscosod.data.files import open_atomic
from umscosod.device import resolve_device
from umscosod.errors import CheckpointError, ConfigError, shorten
from umscosod.features.backbone import AUTO, BackbonePair, check_backbones
from umscosod.features.group import Whitening
from umscosod.network.model import UmsNetwork
from umscosod.pipeline.maps import PROBE, Source, probe_maps
from umscosod.pipeline.setup import Prepared, check_detections
from umscosod.pipeline.stages import prediction_stage
from umscosod.progress import ProgressFn
from umscosod.pseudo.cleaning import LinearProbe, load_probe, save_probe
from umscosod.refine.rrbe import mean_of, uncertainties
from umscosod.training.checkpoint import (
    META_FILE,
    MODEL_FILE,
    CheckpointMeta,
    build_config,
    find_checkpoint,
    load_meta,
    load_network,
    network_config,
    read_part,
    require_file,
    save_calibration,
)
from umscosod.training.loop import TrainedNetwork
from umscosod.types import GroupFeatures

WHITENING_FILE, PROBE_FILE = "whitening.json", "probe.safetensors"
_PROBE_B_BAR = "probe_b_bar"


def calibrate(prepared: Prepared, trained: TrainedNetwork, probe: LinearProbe | None, progress: ProgressFn) -> float:
    """Measure b_bar over the training set (eq. 6); keep it, the whitening and the probe with the checkpoint.

    Returns
    -------
    float
        b_bar of the network.
    """
    b_bar = prediction_stage(prepared, trained.model, progress)
    calibration = {"b_bar": b_bar}
    if probe is not None:  # its own, whoever made the labels that it was fitted to
        work = partial(_probe_lacks, probe, prepared.config)
        lacks = prepared.features.map(work, ((group, None) for group in prepared.features.groups))
        calibration[_PROBE_B_BAR] = mean_of(lack for group in lacks for lack in group)
    save_calibration(trained.checkpoint, calibration)
    content = {stream: one.to_json() for stream, one in prepared.features.whitenings.items()}
    with open_atomic(trained.checkpoint / WHITENING_FILE) as stream:
        stream.write(json.dumps(content, sort_keys=True).encode())
    if probe is not None:  # last: where it is, its b_bar is
        pair = prepared.features.pair
        save_probe(trained.checkpoint / PROBE_FILE, probe, (pair.first.id, pair.second.id))
    return b_bar


def _probe_lacks(probe: LinearProbe, config: PipelineConfig, features: GroupFeatures, _: None) -> list[float]:
    return uncertainties(probe_maps(features, probe, config))


def find_probe(folder: Path, config: PipelineConfig) -> Source | None:
    """Read the probe that a checkpoint keeps, as a source of maps.

    Parameters
    ----------
    folder : Path
        Of the checkpoint.
    config : PipelineConfig
        Reads ``keep`` and ``pseudo.probe``: without use for a probe none is read.

    Returns
    -------
    Source or None
        None where the checkpoint has none, as that of a training without one.

    Raises
    ------
    CheckpointError
        The file is damaged, or belongs to other backbones than the network; or its b_bar is missing.
    """
    if config.keep == "network" or config.pseudo.probe == "none":
        return None
    meta = load_meta(folder)
    probe = load_probe(folder / PROBE_FILE, meta.backbone_ids)
    if probe is None:
        return None
    channels, tokens = len(probe.mean_F), sum(meta.dims)
    if not tokens < channels <= tokens + meta.dims[0]:  # keys are no wider than the tokens that they come from
        raise CheckpointError(
            f"{folder / PROBE_FILE} is damaged: it is for {channels} channels, its backbones have "
            f"{'more' if channels <= tokens else 'fewer'}; train again, or remove the file to predict with the network "
            "alone"
        )
    if _PROBE_B_BAR not in meta.calibration:
        raise CheckpointError(
            f"{folder} has a probe whose {_PROBE_B_BAR} is not in its meta.json: train again, or remove {PROBE_FILE} "
            "to predict with the network alone"
        )
    b_bar = meta.calibration[_PROBE_B_BAR]
    return Source(name=PROBE, b_bar=b_bar, make_maps=partial(probe_maps, probe=probe, config=config))


def hash_checkpoint(folder: Path) -> str:
    """Hash all that predictions depend on; raises CheckpointError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        for name in (MODEL_FILE, META_FILE, PROBE_FILE, WHITENING_FILE):
            if name in (MODEL_FILE, META_FILE) or (folder / name).exists():
                require_file(folder / name)
                digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
        return digest.hexdigest()
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}; train again") from error


def load_fitting(
    folder: Path, pair: BackbonePair, whitenings: dict[str, Whitening]
) -> tuple[UmsNetwork, CheckpointMeta]:
    """Load the network; refuse other backbones, and tokens that would be whitened otherwise than in training.

    Raises
    ------
    CheckpointError
        As `umscosod.training.checkpoint.load_network`; or a whitening is missing or damaged.
    """
    loaded = load_network(folder, (pair.first.id, pair.second.id))
    for stream, backbone in (("first", pair.first), ("second", pair.second)):
        if backbone.needs_whitening and stream not in whitenings:
            raise CheckpointError(
                f"{folder} has no whitening of its {stream} stream: its training was not finished; run it again"
            )
        if backbone.needs_whitening and len(whitenings[stream].mean_D) != backbone.dim:
            raise CheckpointError(
                f"{folder / WHITENING_FILE} is damaged: {stream}: it is for tokens {len(whitenings[stream].mean_D)} "
                f"wide, those of its backbone are {backbone.dim} wide; train again"
            )
    return loaded


def load_whitenings(checkpoint: Path) -> dict[str, Whitening]:
    """Read the whitenings kept with a checkpoint, by stream; CheckpointError if damaged, empty where there are none."""
    file = checkpoint / WHITENING_FILE
    if not file.exists():
        return {}
    content = read_part(file)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{file} is damaged: it holds {shorten(content)} where streams by name belong; train again"
        )
    found = {}
    for stream, values in content.items():
        try:
            found[stream] = Whitening.from_json(values)
        except CheckpointError as error:
            raise CheckpointError(f"{file} is damaged: {shorten(stream)}: {error}") from None
    return found


def take_checkpoint(checkpoint: str | Path, config: PipelineConfig) -> tuple[Path, PipelineConfig]:
    """Find a checkpoint, and the settings to predict with it.

    Raises
    ------
    CheckpointError
        There is none, or its ``meta.json`` is damaged or of another version.
    ConfigError
        ``method`` names a source of maps that uses no network.
    """
    if config.method != "ums":
        raise ConfigError(f"a checkpoint and method {config.method!r} contradict each other; give one of them")
    folder = find_checkpoint(Path(checkpoint))
    return folder, adopt_checkpoint(config, folder)


def adopt_checkpoint(config: PipelineConfig, folder: Path) -> PipelineConfig:
    """Take over the checkpoint's network, and its backbones where the user left the choice open.

    Raises
    ------
    CheckpointError
        Its ``meta.json`` is damaged or of another version.
    """
    meta = load_meta(folder)
    features = _features_of(config.features, meta, folder)
    return replace(config, features=features, network=network_config(meta, folder))


def _features_of(asked: FeaturesConfig, meta: CheckpointMeta, folder: Path) -> FeaturesConfig:
    if asked.backbone != AUTO:
        return asked
    saved = build_config(FeaturesConfig, meta.config.get("features", {}), str(folder / META_FILE), "features")
    return replace(
        saved,
        weights=asked.weights or saved.weights,
        second_weights=asked.second_weights or saved.second_weights,
        batch_size=asked.batch_size,
        precision=saved.precision if asked.precision == "auto" else asked.precision,
        cache_dir=asked.cache_dir,
        use_cache=asked.use_cache,
    )


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
    elif wants_masks and config.method not in BASELINES:
        check_detections(config)
    device = resolve_device(config.device)
    if wants_tokens:
        check_backbones(config.features, device)
