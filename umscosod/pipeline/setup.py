"""Before the first stage: the output folder claimed, the backbones chosen, the images encoded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from umscosod.config import PipelineConfig
from umscosod.data.files import lock_folder
from umscosod.data.images import check_regular
from umscosod.device import resolve_device
from umscosod.engine import Engine
from umscosod.errors import ConfigError, DataError
from umscosod.features.backbone import BackbonePair, build_backbones, late_pair
from umscosod.features.cache import open_cache
from umscosod.features.collection import FeatureCollection, encode_collection
from umscosod.features.group import Whitening
from umscosod.features.remote import fetch_copies
from umscosod.pipeline.identity import JobSpec, deciding_settings, hash_instances, hash_texts, resolve_names
from umscosod.pipeline.job import JobFolder
from umscosod.progress import ProgressFn
from umscosod.pseudo.coco_proposer import CocoProposer
from umscosod.training.processes import ALONE, Processes
from umscosod.types import ImageGroup, Labelled, Status
from umscosod.workers import LazyPool, ProcessEngine, are_worth_processes

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Everything the stages need.

    Attributes
    ----------
    spec : JobSpec
        As asked for.
    groups : tuple of ImageGroup
        As asked for, unusable images included.
    features : FeatureCollection
        Of the usable images.
    config : PipelineConfig
        Resolved: no ``auto`` left.
    job : JobFolder
    hashes : dict of str to str
        Of the files that the job reads, each taken before they are read.
    device : torch.device
    pool : LazyPool
        Processes of this machine.
    detections : CocoProposer or None
        Where instance masks are wanted and are to come from a file.
    processes : Processes
        Those that do the job together.
    """

    spec: JobSpec
    groups: tuple[ImageGroup, ...]
    features: FeatureCollection
    config: PipelineConfig
    job: JobFolder
    hashes: dict[str, str]
    device: torch.device
    pool: LazyPool
    detections: CocoProposer | None = None
    processes: Processes = ALONE

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the job."""
        alone = [
            f"group {group.name!r} has one image: it is labelled by itself, nothing else says what recurs"
            for group in self.features.groups
            if len(group.images) == 1
        ]
        return (*self.spec.notes, *self.features.pair.notes, *alone)

    def engine_for(self, groups: Sequence[ImageGroup], pieces: int | None = None) -> Engine | None:
        """Give the job's engine, or processes of this machine, for work on groups; None: it is done in this process.

        Parameters
        ----------
        groups : sequence of ImageGroup
        pieces : int, optional
            Into how many the work can be cut; None: one a group.
        """
        can_send = self.spec.pair is None  # a backbone of one's own may not be fit to be sent
        if self.spec.engine is not None or not can_send or (len(groups) if pieces is None else pieces) < 2:
            return self.spec.engine
        count = sum(len(group.images) for group in groups)
        return ProcessEngine(self.pool.start()) if are_worth_processes(count) else None

    def failed_rows(self) -> list[Labelled]:
        """One row for every image that could not be encoded."""
        return [
            Labelled(
                image_id=image.id,
                group=group.name,
                output=image.output,
                status=Status.FAILED,
                reason=self.features.failures[image.id],
            )
            for group in self.groups
            for image in group.images
            if image.id in self.features.failures
        ]


@contextmanager
def prepare(
    groups: tuple[ImageGroup, ...],
    spec: JobSpec,
    *,
    overwrite: bool,
    progress: ProgressFn,
    whitenings: Mapping[str, Whitening] | None = None,
    admit: Callable[[BackbonePair], object] = lambda pair: None,
    wants_masks: bool = False,
    processes: Processes = ALONE,
) -> Iterator[Prepared]:
    """Choose, claim and encode; see `Prepared`.

    Parameters
    ----------
    groups : tuple of ImageGroup
        See `umscosod.data.groups.find_groups`.
    spec : JobSpec
    overwrite : bool
    progress : callable
    whitenings : mapping, optional
        Of a checkpoint.
    admit : callable
        Sees the backbones before anything is written or encoded, and may raise.
    wants_masks : bool
        Pseudo-labels will be made: a file of instance masks is read now, before hours of work.
    processes : Processes
        The first claims the folder and encodes; then the others find all of it in the cache.

    Raises
    ------
    UmscosodError
        Whatever is wrong at the door: detections, weights, an output folder of other results, or one that another job
        is working on.
    """
    hashes = {"instances": hash_instances(spec.config)} if wants_masks else {}
    hashes |= {"maps": spec.stored_hash} if spec.stored_hash else {}
    detections = _read_detections(spec.config, groups) if wants_masks else None
    pair, config, device = _choose_backbones(spec)
    admit(pair)
    settings = {**spec.mode, "config": deciding_settings(config), "backbones": [pair.first.id, pair.second.id]}
    claim = lock_folder(spec.out) if processes.is_first else nullcontext()
    cached = open_cache(config.features.cache_dir, use_cache=config.features.use_cache)
    with claim, cached as cache, LazyPool() as pool:
        with processes.first_alone():
            job = JobFolder(spec.out, settings, overwrite=overwrite and processes.is_first, writes=processes.is_first)
            if detections is not None:
                job.bind_detections(detections.sha256)
            groups, lost = fetch_copies(groups, cache, progress, fetches=processes.is_first)
            features = encode_collection(
                groups,
                pair,
                config,
                cache,
                lost=lost,
                whitenings=whitenings,
                progress=progress,
                engine=spec.engine,
                sent=_form_to_send(spec, pair, config),
                pool=pool,
            )
            job.bind_images(groups, features.sha256)
            if spec.stored_hash:
                job.bind_maps(spec.stored_hash)
        yield Prepared(
            spec=spec,
            groups=groups,
            features=features,
            config=config,
            job=job,
            hashes=hashes | {"images": hash_texts(list(features.sha256.values()))},
            device=device,
            detections=detections,
            processes=processes,
            pool=pool,
        )


def _choose_backbones(spec: JobSpec) -> tuple[BackbonePair, PipelineConfig, torch.device]:
    """Give the backbones of a job and the device, and the settings that name both."""
    config, pair, device = spec.config, spec.pair, resolve_device(spec.config.device)
    if pair is None:
        pair = build_backbones(config.features, device)
        config = resolve_names(config, pair.first.name, pair.second.name)
    return pair, replace(config, device=str(device)), device


def _form_to_send(spec: JobSpec, pair: BackbonePair, config: PipelineConfig) -> BackbonePair:
    """Give the pair in the form that workers get; backbones of one's own are sent as they are."""
    if spec.pair is not None:
        return pair
    device = config.device if spec.engine is None else spec.engine.network_device(config.device)
    return late_pair(pair, config.features, device, config.device)


def _read_detections(config: PipelineConfig, groups: Sequence[ImageGroup]) -> CocoProposer | None:
    """Read the file of instance masks, if the settings want one; say so where one is named in vain."""
    if config.pseudo.proposer != "coco-json":
        if config.pseudo.detections:
            logger.warning(
                "pseudo.detections %s is not used: pseudo.proposer is %s; set it to coco-json",
                config.pseudo.detections,
                config.pseudo.proposer,
            )
        return None
    check_detections(config)
    images = [image for group in groups for image in group.images]
    return CocoProposer(Path(config.pseudo.detections), config.pseudo, images)


def check_detections(config: PipelineConfig) -> None:
    """Refuse settings that want instance masks from a file, and name none or one that is not there.

    Raises
    ------
    ConfigError, DataError
    """
    if config.pseudo.proposer != "coco-json":
        return
    file = config.pseudo.detections
    if not file:
        raise ConfigError(
            "pseudo.detections is empty: give the COCO-format file of masks, or set pseudo.proposer to hac"
        )
    try:
        check_regular(Path(file), "a COCO-format file")
    except DataError as error:
        raise DataError(f"pseudo.detections: {error}") from None
