"""Provides a model for ``dataset.apply_model``, which splits each batch into groups and labels each group.

The model is in the package, not in the plugin or the zoo, so that any process can import it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import fiftyone as fo
import fiftyone.core.config as foc
import fiftyone.core.models as fom
import numpy as np

from umscosod.config.io import DEFAULT_PRESET, load_config
from umscosod.errors import ConfigError, DataError
from umscosod.export.png import map_to_bytes
from umscosod.integrations.fiftyone.runs.fields import FOREGROUND, MODEL
from umscosod.pipeline.predictor import GroupPrediction, check_picture, load_model
from umscosod.types import ByteArray

logger = logging.getLogger(__name__)

OUTPUTS = ("segmentation", "heatmap")
_GROUP_FIELD = "group_field"
_CURE = (
    "apply the model to dataset.sort_by(GROUP_FIELD) with batch_size at least the size of the largest group, or to one "
    "group at a time; the operators label and predict always see whole groups"
)


class CoSalModelConfig(foc.Config):  # type: ignore[misc]  # untyped base
    """Settings of `CoSalModel`, as the dictionary that FiftyOne passes.

    Parameters
    ----------
    d : mapping
        ``checkpoint``: as for `umscosod.load_model`; absent or None: no network, refined pseudo-labels are the masks.
        ``preset``: name of the settings to start from, by default ``fast``. ``config_file``: YAML file of settings.
        ``settings``: further settings by dotted name, such as ``{"refine.crf.enabled": False}``. ``output``:
        ``segmentation`` (default) or ``heatmap``. ``group_field``: the field whose value names a sample's group.

    Raises
    ------
    ConfigError
        An unknown key or output.
    """

    KEYS = ("checkpoint", "preset", "config_file", "settings", "output", "group_field")

    def __init__(self, d: Mapping[str, Any]) -> None:
        unknown = sorted(set(d) - set(self.KEYS))
        if unknown:
            raise ConfigError(f"unknown model settings {', '.join(unknown)}; known: {', '.join(self.KEYS)}")
        self.checkpoint: str | None = d.get("checkpoint") or None
        self.preset: str = d.get("preset") or DEFAULT_PRESET
        self.config_file: str | None = d.get("config_file") or None
        self.settings: dict[str, Any] = dict(d.get("settings") or {})
        self.output: str = d.get("output") or OUTPUTS[0]
        self.group_field: str | None = d.get("group_field") or None
        if self.output not in OUTPUTS:
            raise ConfigError(f"output must be one of {', '.join(OUTPUTS)}, got {self.output!r}")


class CoSalModel(fom.SamplesMixin, fom.Model):  # type: ignore[misc]  # untyped bases
    """Finds the common object of each group of a batch.

    Parameters
    ----------
    config : CoSalModelConfig

    Notes
    -----
    FiftyOne cuts a collection into batches, not into groups. The model splits each batch by the group field (without
    one, by the image's folder). It sees a group only within one batch. If a group spans two batches, it labels the
    parts separately and warns once. Samples without a value in the group field get no label.

    Labels have the attributes ``confidence`` in [0, 1] and ``provenance="model"``. Segmentations hold 0 and 255,
    heatmaps 0 to 255. ``output_dir`` writes them to files, with a new name at each call. The operators ``label`` and
    ``predict`` resume and keep track of their files.

    Examples
    --------
    ::

        from umscosod.integrations.fiftyone import CoSalModel, CoSalModelConfig

        model = CoSalModel(CoSalModelConfig({"checkpoint": "OUT/run"}))
        largest = max(dataset.count_values("cls").values())
        dataset.sort_by("cls").apply_model(
            model, label_field="cosal", batch_size=largest, group_field="cls", output_dir="masks"
        )
        dataset.mask_targets["cosal"] = {255: "co-salient"}
        dataset.save()
    """

    media_type = "image"
    ragged_batches = False  # a batch may hold pictures of different sizes, and FiftyOne respects ``batch_size``
    transforms = None  # pictures come unchanged
    preprocess = True  # FiftyOne sets it; without transforms it has no effect

    def __init__(self, config: CoSalModelConfig) -> None:
        fom.SamplesMixin.__init__(self)
        self.config = config
        file = None if config.config_file is None else Path(config.config_file)
        self.predictor = load_model(config.checkpoint, load_config(config.preset, file, config.settings))
        self._seen: set[str] = set()
        self._has_warned = False

    def __enter__(self) -> Self:
        """Start a new collection: no group has been seen yet."""
        self._seen, self._has_warned = set(), False
        self.predictor.__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        self.predictor.__exit__(*args)

    @property
    def needs_fields(self) -> dict[str, str]:
        """The sample field to read: ``group_field``, of `apply_model`'s arguments or else of the settings."""
        default = {_GROUP_FIELD: self.config.group_field} if self.config.group_field else {}
        return {**default, **self._fields}

    @needs_fields.setter
    def needs_fields(self, fields: Mapping[str, str]) -> None:
        unknown = sorted(set(fields) - {_GROUP_FIELD})
        if unknown:
            raise ConfigError(f"unknown arguments for this model: {', '.join(unknown)}; it knows {_GROUP_FIELD}")
        self._fields = {key: field for key, field in fields.items() if field}

    def predict(self, arg: ByteArray, sample: Any = None) -> Any:
        """Label one picture by itself; see `predict_all`."""
        return self.predict_all([arg], samples=None if sample is None else [sample])[0]

    def predict_all(self, args: Sequence[ByteArray], samples: Iterable[Any] | None = None) -> list[Any]:
        """Label a batch, group by group.

        Parameters
        ----------
        args : sequence of ndarray, uint8, (H, W, 3)
            Upright RGB pictures.
        samples : iterable of fiftyone.Sample, optional
            The samples of the pictures, in the same order. None: all pictures are one group.

        Returns
        -------
        list of fiftyone.Segmentation, fiftyone.Heatmap or None
            None for a picture that cannot be used (the log gives the reason), and for a sample without a group.

        Raises
        ------
        DataError
            The group field does not exist or holds several values a sample.
        """
        if samples is None:
            known: list[tuple[str | None, str]] = [("all", f"picture {index}") for index in range(len(args))]
        else:
            known = [(self._group_of(sample), sample.filepath) for sample in samples]
        members: dict[str, list[int]] = {}
        for index, ((group, name), picture_HW3) in enumerate(zip(known, args, strict=True)):
            if group is not None and self._is_usable(picture_HW3, name):
                members.setdefault(group, []).append(index)
        if samples is not None:
            self._warn_of_cut_groups(members)
        labels: list[Any] = [None] * len(args)
        for indices in members.values():
            found = self.predictor.predict_group([args[index] for index in indices])
            for index, one in zip(indices, found, strict=True):
                labels[index] = self._to_label(one)
        return labels

    def _group_of(self, sample: Any) -> str | None:
        """Return the value that names a sample's group; None if there is none."""
        field = self.needs_fields.get(_GROUP_FIELD)
        if not field:
            return str(Path(sample.filepath).parent)
        if not sample.has_field(field):
            raise DataError(f"there is no field {field!r} to group by; pass group_field=NAME of one that there is")
        value = sample[field]
        value = value.label if isinstance(value, fo.Classification) else value
        if not isinstance(value, str | int | float | None):
            kind = type(value).__name__
            raise DataError(f"cannot group by {field!r}: it holds {kind}; use a text, number or Classification field")
        return None if value is None else str(value)

    def _is_usable(self, picture_HW3: ByteArray, name: str) -> bool:
        """Whether a picture can be encoded; unchecked, one bad picture would end the labelling of its group."""
        try:
            check_picture(picture_HW3, name, self.predictor.config.data)
        except DataError as error:
            logger.warning("no label: %s", error)
            return False
        return True

    def _warn_of_cut_groups(self, groups: Iterable[str]) -> None:
        cut = self._seen.intersection(groups)
        if cut and not self._has_warned:
            logger.warning("group %r lies in more than one batch and is labelled in parts: %s", min(cut), _CURE)
            self._has_warned = True
        self._seen.update(groups)

    def _to_label(self, found: GroupPrediction) -> Any:
        if self.config.output == "heatmap":
            return fo.Heatmap(map=map_to_bytes(found.map_HW), confidence=found.confidence, provenance=MODEL)
        mask_HW = found.mask_HW.astype(np.uint8) * np.uint8(FOREGROUND)
        return fo.Segmentation(mask=mask_HW, confidence=found.confidence, provenance=MODEL)
