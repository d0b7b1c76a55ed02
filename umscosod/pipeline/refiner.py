"""Stage 3 over a collection: refine every maker's maps of a group, choose, judge, write."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from umscosod.confidence.judge import GroupJudgement, judge_group
from umscosod.data.masks import read_mask
from umscosod.data.resize import resize_aligned, resize_mask
from umscosod.export.folder import path_inside
from umscosod.export.png import write_map, write_mask
from umscosod.pipeline.maps import PROBE, PSEUDO, STORED, Candidate, MadeMaps, choose_maps, copy_stored, read_stored
from umscosod.pipeline.setup import Prepared
from umscosod.pipeline.stages import Labels, label_maps, probe_maps
from umscosod.progress import ProgressFn
from umscosod.pseudo.probe import LinearProbe
from umscosod.pseudo.store import HUMAN_SOURCE
from umscosod.refine.crf_pool import CrfPool, open_pool
from umscosod.types import FloatArray, GroupFeatures, ImageRef, Labelled, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Refiner:
    """Stage 3 over a collection: refine, choose, write.

    Attributes
    ----------
    prepared : Prepared
    labels : mapping of str to PseudoLabel, or None
    b_bars : mapping of str to float
        By maker, ``network`` and ``pseudo-label`` or ``probe``, or ``stored map`` or a peer's name alone: whose maps
        are there to refine.
    pool : CrfPool or None
    stored : mapping of str to Path
        Files of the stored maps by image id.
    probe : LinearProbe or None
        Of a checkpoint.
    """

    prepared: Prepared
    labels: Labels | None
    b_bars: Mapping[str, float]
    pool: CrfPool | None
    stored: Mapping[str, Path] = field(default_factory=dict)
    probe: LinearProbe | None = None

    def run(self, progress: ProgressFn) -> list[Labelled]:
        """Write the masks and maps of every group; finished groups are left alone."""
        rows: list[Labelled] = []
        groups = self.prepared.features.groups
        for number, group in enumerate(groups):
            progress(number, len(groups), "refinement")
            done = self.prepared.job.load_rows(group)
            if done is None:
                features = self.prepared.features.load(group)
                done = self._write(features, self._choose(features))
                self.prepared.job.save_rows(group, done)
            rows += done
        progress(len(groups), len(groups), "refinement")
        return rows

    def _choose(self, features: GroupFeatures) -> Candidate:
        made = {
            source: MadeMaps(maps_NHW=self._maps(features, source), b_bar=b_bar)
            for source, b_bar in self.b_bars.items()
        }
        return choose_maps(features, made, self.prepared.config, self.pool)

    def _maps(self, features: GroupFeatures, source: str) -> FloatArray:
        if source == PROBE:
            assert self.probe is not None
            return probe_maps(features, self.probe, self.prepared.config)
        if source not in (PSEUDO, STORED):
            maps_NHW = self.prepared.job.load_maps(features.group)
            assert maps_NHW is not None, "the prediction stage, or that of a peer, ran"
            return maps_NHW
        if source == STORED:
            size_hw = (features.pictures_NHW3.shape[1], features.pictures_NHW3.shape[2])
            return np.stack([read_stored(self.stored[image.id], size_hw) for image in features.group.images])
        assert self.labels is not None
        return np.stack(label_maps(features, self.labels, self.prepared.config))

    def _write(self, features: GroupFeatures, kept: Candidate) -> list[Labelled]:
        judged = judge_group(features, [one.mask_HW for one in kept.refined], self.prepared.config.confidence)
        self.prepared.job.save_cues(features.group, _list_cues(features, judged))
        rows = []
        for index, image in enumerate(features.group.images):
            refined, map_HW, size_hw = kept.refined[index], kept.maps_NHW[index], features.sizes_hw[index]
            mask_HW, source, one = refined.mask_HW, kept.source, judged.masks[index]
            confidence, reason = one.confidence, "; ".join(filter(None, (one.reason, refined.failure)))
            if one.is_withdrawn:
                mask_HW = np.zeros_like(mask_HW)
            if self.labels is not None and image.id in self.labels and self.labels[image.id].source == HUMAN_SOURCE:
                own_HW = read_mask(self._path("pseudo", image), faint=[])  # a faint one was named when labels were read
                mask_HW = resize_mask(own_HW, size_hw)
                source, confidence, reason = HUMAN_SOURCE, 1.0, ""
            is_found = bool(mask_HW.any())
            if kept.source == STORED:
                copy_stored(self.stored[image.id], self._path("maps", image), size_hw)
            else:
                write_map(self._path("maps", image), resize_aligned(map_HW, size_hw))
            write_mask(self._path("masks", image), mask_HW)
            rows.append(
                Labelled(
                    image_id=image.id,
                    group=features.group.name,
                    output=image.output,
                    status=Status.LABELLED if is_found else Status.EMPTY,
                    confidence=confidence if is_found else 0.0,
                    reason=reason if is_found else reason or _why_empty(source, refined.threshold),
                    source=source,
                    threshold=refined.threshold,
                    is_mixed=judged.is_mixed,
                )
            )
        return rows

    def _path(self, tree: str, image: ImageRef) -> Path:
        return path_inside(self.prepared.job.out, f"{tree}/{image.output}")


def open_workers(prepared: Prepared) -> AbstractContextManager[CrfPool | None]:
    """Open processes for DenseCRF, as many as the largest group has images at most: groups are done one by one."""
    largest = max((len(group.images) for group in prepared.features.groups), default=0)
    return open_pool(prepared.config.refine.crf, largest)


def _list_cues(features: GroupFeatures, judged: GroupJudgement) -> dict[str, object]:
    """Content of a group's file under ``run/cues``."""
    return {
        "group": features.group.name,
        "kind": "whitened" if features.first.is_whitened else "plain",
        "outputs": [image.output for image in features.group.images],
        "group_cues": judged.cues,
        "mask_cues": [one.cues for one in judged.masks],
    }


def _why_empty(source: str, threshold: float) -> str:
    return "a person left it empty" if source == HUMAN_SOURCE else f"no region passed the threshold {threshold:.2f}"
