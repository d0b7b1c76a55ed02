"""Labels a data set: each pipeline step is one function that stores its results as label fields."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, load_config, load_stored, parse_yaml, read_settings_file
from umscosod.data.masks import read_mask, write_png_atomic
from umscosod.engine import Engine
from umscosod.errors import DataError
from umscosod.integrations.fiftyone.runs.edits import read_edits
from umscosod.integrations.fiftyone.runs.fields import FOREGROUND, HUMAN
from umscosod.integrations.fiftyone.runs.jobs import Job, RunReport, flat_images, run_job
from umscosod.integrations.fiftyone.runs.parts import Part, list_parts
from umscosod.integrations.fiftyone.runs.record import IMPORT, Progress, find_run, get_run
from umscosod.integrations.fiftyone.runs.start import open_engine
from umscosod.integrations.fiftyone.runs.survey import checkpoint_of
from umscosod.integrations.fiftyone.runs.training import check_detections_field, with_detections_file
from umscosod.pipeline import LabelReport, label_groups, make_pseudo_labels, refine_maps
from umscosod.progress import ProgressFn
from umscosod.types import Status


def label_dataset(
    sample_collection: Any,
    *,
    group_field: str | None = None,
    field: str = "cosal",
    out_dir: str | Path | None = None,
    config: PipelineConfig | None = None,
    checkpoint: str | Path | None = None,
    train: bool | None = None,
    overwrite: bool = False,
    editable: bool = False,
    engine: Engine | str | None = None,
    progress: Progress = None,
) -> RunReport:
    """Find the common object of each group of samples and store it as labels.

    Parameters
    ----------
    sample_collection : fiftyone.core.collections.SampleCollection
        An image data set or view. A ``group_by()`` view is flattened; a multi-sensor data set needs a slice.
    group_field : str, optional
        Field whose value names a sample's group: text, number or Classification. None: the image's folder.
    field : str
        Name of the mask field and of the run. ``<field>_map`` holds the soft map; ``<field>_confidence``,
        ``<field>_status`` and ``<field>_reason`` hold the values of `Labelled`.
    out_dir : path, optional
        Folder for the run's files; by default one beside FiftyOne's data. The labels point into it.
    config : PipelineConfig, optional
        By default the ``fast`` preset, as on the command line.
    checkpoint : path or str, optional
        Label with this network instead of training one; see `predict_dataset`.
    train : bool, optional
        Whether to train a network on the pseudo-labels, unless a checkpoint is given; False stops at refined
        pseudo-labels. By default where it pays, see `umscosod.pipeline.identity.advise_training`.
    overwrite : bool
        Replace existing labels, but never a person's. Otherwise finished groups are skipped. In the other groups all
        samples are processed, but only unfinished ones are written.
    editable : bool
        Also write the islands of each mask as objects into ``<field>_objects``, which a person can edit in the App
        (tab *Annotate*). What a person edits becomes the sample's mask, which no run overwrites. A run that has
        objects goes on to write them.
    engine : Engine or str, optional
        Where images are encoded and groups worked on; None: in this process. ``"ray"``: a Ray of this machine, for this
        call. Another text: the address of a Ray cluster, ``HOST:PORT`` or ``auto``. Or an open
        `umscosod.engine.RayEngine`. The labels are the same; a run may be resumed with another engine.
    progress : callable or bool, optional
        A `umscosod.progress.ProgressFn`; or whether to show FiftyOne's progress bar. None:
        ``fiftyone.config.show_progress_bars`` decides.

    Returns
    -------
    RunReport

    Raises
    ------
    DataError
        There are no images, a field is unsuitable, or an interrupted run has other settings.
    ConfigError, MissingDependencyError, EngineError
        The engine is no address, Ray is not installed, or there is no such cluster.

    Notes
    -----
    The same call resumes a job that was killed at any moment. Labels are written after their files are complete.
    """
    config = config or load_config(DEFAULT_PRESET)
    folder = None if checkpoint is None else checkpoint_of(sample_collection, checkpoint)
    with open_engine(engine) as opened:
        job = Job(
            key=field,
            group_field=group_field,
            out_dir=out_dir,
            config=config,
            verb={"verb": "label", "train": train, "checkpoint": "" if folder is None else str(folder)},
            overwrite=overwrite,
            editable=editable,
            engine=opened,
        )
        given: dict[str, Any] = {"checkpoint": folder, "train": train, "engine": opened}

        def work(part: Part, progress: ProgressFn) -> LabelReport:
            return label_groups(part.groups, part.folder, config, **given, progress=progress)

        return run_job(sample_collection, job, work, progress)


def predict_dataset(
    sample_collection: Any,
    checkpoint: str | Path,
    *,
    group_field: str | None = None,
    field: str = "predicted",
    out_dir: str | Path | None = None,
    config: PipelineConfig | None = None,
    overwrite: bool = False,
    editable: bool = False,
    engine: Engine | str | None = None,
    progress: Progress = None,
) -> RunReport:
    """Label a new collection with a trained network: no pseudo-labels, no training.

    Parameters
    ----------
    sample_collection, group_field, field, out_dir, config, overwrite, editable, engine, progress
        As for `label_dataset`.
    checkpoint : path or str
        Key of a run of this data set that trained; ``DATASET/KEY`` of another data set, see `list_networks`; or the
        folder of a run, an output folder or a checkpoint on disk.

    Raises
    ------
    CheckpointError
        There is no such network, or it belongs to other backbones.
    """
    return label_dataset(
        sample_collection,
        group_field=group_field,
        field=field,
        out_dir=out_dir,
        config=config,
        checkpoint=checkpoint,
        overwrite=overwrite,
        editable=editable,
        engine=engine,
        progress=progress,
    )


def pseudo_label_dataset(
    sample_collection: Any,
    *,
    group_field: str | None = None,
    field: str = "pseudo",
    out_dir: str | Path | None = None,
    config: PipelineConfig | None = None,
    detections_field: str | None = None,
    overwrite: bool = False,
    editable: bool = False,
    progress: Progress = None,
) -> RunReport:
    """Make the pseudo-labels of each group (CM-SPLG) and store them, for inspection and training.

    Parameters
    ----------
    sample_collection, group_field, out_dir, config, overwrite, editable, progress
        As for `label_dataset`. ``config.pseudo.proposer`` and ``config.pseudo.detections`` name a COCO file of
        instance masks, matched to the samples by the paths of their files (docs/pseudo_labels.md).
    field : str
        Name of the mask field and of the run; there are no soft maps.
    detections_field : str, optional
        Read the instance masks from this ``Detections`` field instead of making them by clustering.
    """
    config = config or load_config(DEFAULT_PRESET)
    dataset = sample_collection._dataset
    if detections_field is not None:
        check_detections_field(dataset, detections_field)
    job = Job(
        key=field,
        group_field=group_field,
        out_dir=out_dir,
        config=config,
        verb={"verb": "pseudo", "detections_field": detections_field or ""},
        overwrite=overwrite,
        editable=editable,
        has_maps=False,
        tree="pseudo",
    )

    def work(part: Part, progress: ProgressFn) -> LabelReport:
        chosen = with_detections_file(dataset, detections_field, part, config) if detections_field else config
        return make_pseudo_labels(part.groups, part.folder, chosen, progress=progress)

    return run_job(sample_collection, job, work, progress)


def refine_dataset(
    sample_collection: Any,
    source: str,
    *,
    field: str = "refined",
    out_dir: str | Path | None = None,
    config: PipelineConfig | None = None,
    overwrite: bool = False,
    editable: bool = False,
    progress: Progress = None,
) -> RunReport:
    """Refine the stored soft maps of a run again (RRBE): other threshold, region filter or CRF, no network pass.

    Parameters
    ----------
    sample_collection, out_dir, overwrite, editable, progress
        As for `label_dataset`.
    source : str
        Key of a run with soft maps. Its groups are used.
    config : PipelineConfig, optional
        Only its section ``refine`` is used: features, device and all other settings are those of the source. The
        default is all settings of the source. An imported run has no settings: then the whole `config` is used, by
        default the ``fast`` preset.
    field : str
        Name of the new mask field and of the new run.

    Raises
    ------
    DataError
        `source` is no run with soft maps.

    Notes
    -----
    A sample whose mask in `source` is a person's keeps that mask in `field`.
    """
    view = flat_images(sample_collection)
    read_edits(view._dataset, source)
    run = get_run(view._dataset, source)
    config = _config_of_source(view._dataset, source, config)
    maps_field = f"{source}_map"
    if maps_field not in run.fields:
        raise DataError(f"the run {source!r} has no soft maps to refine; choose one made by label, predict or import")
    if source == field:
        raise DataError(f"refining {source!r} into itself would lose its masks; choose another field name")
    with_maps = view.exists(maps_field)
    files = dict(zip(*with_maps.values(["id", f"{maps_field}.map_path"]), strict=True))
    job = Job(
        key=field,
        group_field=run.group_field,
        out_dir=out_dir,
        config=config,
        verb={"verb": "refine", "source": source},
        overwrite=overwrite,
        editable=editable,
    )

    def work(part: Part, progress: ProgressFn) -> LabelReport:
        maps = {sample: Path(files[sample]) for sample in part.sample_ids if sample in files}
        report = refine_maps(part.groups, maps, part.folder, config, progress=progress)
        return _with_masks_of_people(report, with_maps, source)

    return run_job(with_maps, job, work, progress)


def _with_masks_of_people(report: LabelReport, view: Any, source: str) -> LabelReport:
    """Put a person's masks of the source in the place of those made of its maps: copies, which follow their source."""
    people = view.match(fo.ViewField(f"{source}.provenance") == HUMAN)
    ids, paths = people.values(["id", f"{source}.mask_path"])
    masks = {id_: Path(path) for id_, path in zip(ids, paths, strict=True) if path}
    rows = []
    for row in report.rows:
        if row.image_id in masks:
            mask_HW = read_mask(masks[row.image_id])
            write_png_atomic(report.out / "masks" / row.output, mask_HW.astype(np.uint8) * np.uint8(FOREGROUND))
            status = Status.LABELLED if mask_HW.any() else Status.EMPTY
            row = replace(row, status=status, confidence=1.0, reason=f"a person's mask in {source!r}")
        rows.append(row)
    return replace(report, rows=tuple(rows))


def _config_of_source(dataset: Any, source: str, config: PipelineConfig | None) -> PipelineConfig:
    """Return the settings of a run, with its features, and the requested refinement."""
    record: Any = find_run(dataset, source)
    if record.method == IMPORT:
        return config or load_config(DEFAULT_PRESET)
    own = load_stored(record.settings, f"run {source!r}")
    used = [part.folder / "run" / "config.yaml" for part in list_parts(Path(record.folder), record.run_id)]
    found = [file for file in used if file.is_file()]
    if found:  # as the run resolved them: by the available weights, or by its checkpoint
        stored = load_stored(parse_yaml(read_settings_file(found[-1])), str(found[-1]))
        own = replace(own, features=stored.features)
    return own if config is None else replace(own, refine=config.refine)
