"""A bench: every method on every data set, refined and scored alike, with files that a later call reads again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from umscosod.bench.entries import BenchDataset, Entry, find_datasets, open_dataset
from umscosod.bench.table import BenchReport, Cell, format_report, report_to_json, save_tables, write_page
from umscosod.config import PipelineConfig
from umscosod.config.io import DEFAULT_PRESET, change_config, load_config
from umscosod.data.files import check_place, open_atomic
from umscosod.data.folders import refuse_images_in
from umscosod.data.mask_rules import MaskRule, MaskValue
from umscosod.device import resolve_device
from umscosod.errors import Cancelled, ConfigError, DataError, UmscosodError, count_of, one_line
from umscosod.evaluation import Evaluation
from umscosod.evaluation.scoring import TOOLS, score_pairs
from umscosod.evaluation.trees import Pair, Pairing, index_pictures
from umscosod.export.folder import path_inside
from umscosod.features.backbone import build_backbones
from umscosod.pipeline import LabelReport, label_groups, refine_maps
from umscosod.progress import ProgressFn, ignore_progress
from umscosod.types import Status

logger = logging.getLogger(__name__)


def save_bench(report: BenchReport, *, shown: int) -> str:
    """Write ``OUT/bench.json``, ``OUT/bench.md`` and ``OUT/index.html``; return the tables.

    Parameters
    ----------
    report : BenchReport
    shown : int
        Pictures of each data set on the page.
    """
    text = format_report(report)
    save_tables(report.out, "bench", report_to_json(report), text)
    write_page(report, shown)
    return text


def run_bench(
    data: Sequence[str | os.PathLike[str]],
    methods: Sequence[Entry],
    out: str | os.PathLike[str],
    config: PipelineConfig | None = None,
    *,
    as_is: bool = False,
    overwrite: bool = False,
    mask_value: MaskValue | None = None,
    progress: ProgressFn = ignore_progress,
) -> BenchReport:
    """Label every data set by every method with one refinement for all, and score the masks.

    Parameters
    ----------
    data : sequence of path
        See `umscosod.bench.entries.find_datasets`.
    methods : sequence of Entry
        See `umscosod.bench.entries.parse_methods`. One that takes another's network comes after it.
    out : path
        ``OUT/<data set>/<method>`` are output folders like those of `label_groups`, and are resumed like them.
    config : PipelineConfig, optional
        By default the ``fast`` preset. Each entry's settings are laid over it; ``method`` is always among them.
    as_is : bool
        Score the maps of other programs as they are; else they are refined like all others.
    overwrite : bool
        Replace results of other settings or images.
    mask_value : int, str or sequence, optional
        Ids in the ground truths that are foreground; see `umscosod.evaluate`.
    progress : callable

    Returns
    -------
    BenchReport
        A data set that cannot be read, and a method that fails on one, is a cell with an error.

    Raises
    ------
    ConfigError
        A setting is wrong, there is no data set, or features are not to be cached: each method would make them anew.
    WeightsError
        The backbone's weights are missing.
    """
    config = load_config(DEFAULT_PRESET) if config is None else config
    configs = {entry.name: change_config(config, entry.settings) for entry in methods}
    if not config.features.use_cache:
        raise ConfigError("features.use_cache is off, and each method would encode the images anew; leave it on")
    check_place(out, "bench")
    datasets, out = find_datasets([Path(path) for path in data]), Path(out)
    refuse_images_in(out, exclude=datasets.values())
    pair = build_backbones(config.features, resolve_device(config.device))
    run = _Run(datasets=datasets, out=out, configs=configs, as_is=as_is, overwrite=overwrite, progress=progress)
    cells: list[Cell] = []
    encoding: dict[str, float] = {}
    pictures: dict[str, dict[str, tuple[Path, Path]]] = {}
    truth_rules: dict[str, MaskRule] = {}
    notes = list(pair.notes)
    for name, root in datasets.items():
        try:
            dataset = open_dataset(root, pair, config, progress, mask_value)
        except Cancelled:
            raise
        except (UmscosodError, OSError) as error:
            cells += [Cell(dataset=name, method=entry.name, error=one_line(str(error))) for entry in methods]
            continue
        encoding[name], truth_rules[name] = dataset.encoding_s, dataset.truth_rule
        pictures[name] = {image.id: (image.path, dataset.benchmark.masks[image.id]) for _, image in dataset.scored}
        notes += _notes_on(name, dataset)
        cells += _run_entries(run, name, dataset, methods)
    return BenchReport(
        out=out,
        methods=tuple(entry.name for entry in methods),
        cells=tuple(cells),
        encoding=encoding,
        pictures=pictures,
        notes=tuple(notes),
        facts={
            "definition": TOOLS["cosod"],
            "refinement": "the same for all" if config.refine.enabled else "none",
            "seed": str(config.seed),
        },
        backbones=(pair.first.id, pair.second.id),
        truth_rules=truth_rules,
    )


def _notes_on(name: str, dataset: BenchDataset) -> Iterator[str]:
    if not dataset.truth_rule.is_plain:
        yield f"{name}: ground truths of {dataset.truth_rule.sentence}"
    if dataset.unreadable:
        yield f"{name}: {count_of(len(dataset.unreadable), 'image')} cannot be read: scored for no method"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What all cells of a bench are run with; `configs` by the name of the entry."""

    datasets: Mapping[str, Path]
    out: Path
    configs: Mapping[str, PipelineConfig]
    as_is: bool
    overwrite: bool
    progress: ProgressFn


def _run_entries(run: _Run, name: str, dataset: BenchDataset, entries: Sequence[Entry]) -> list[Cell]:
    cells: list[Cell] = []
    for entry in entries:
        if any(cell.error for cell in cells if cell.method == entry.network_of):
            why = f"it takes the network of {entry.network_of}: failed"
            cells.append(Cell(dataset=name, method=entry.name, error=why))
        else:
            cells.append(_run_entry(run, name, dataset, entry))
    return cells


def _run_entry(run: _Run, name: str, dataset: BenchDataset, entry: Entry) -> Cell:
    # maps of another program are in FOLDER/NAME, or in FOLDER where there is but one data set
    if entry.folder is not None and (len(run.datasets) > 1 or (entry.folder / name).is_dir()):
        entry = replace(entry, folder=entry.folder / name)

    def report_progress(done: int, total: int, stage: str) -> None:
        run.progress(done, total, f"{name} {entry.name}: {stage}")

    try:
        if entry.folder is not None and run.as_is:
            seconds, predictions = None, _find_maps(dataset, entry.folder)
            masks = maps = _score(dataset, predictions, entry.folder)
        else:
            folder = path_inside(run.out, f"{name}/{entry.name}")
            seconds = _label(run, dataset, entry, folder, report_progress)
            predictions = _outputs(dataset, folder / "masks")
            masks = _score(dataset, predictions, folder / "masks")
            maps = _score(dataset, _outputs(dataset, folder / "maps"), folder / "maps")
        return Cell(dataset=name, method=entry.name, masks=masks, maps=maps, predictions=predictions, seconds=seconds)
    except Cancelled:
        raise
    except (UmscosodError, OSError) as error:
        logger.warning("%s, %s: %s", name, entry.name, error)
        return Cell(dataset=name, method=entry.name, error=one_line(str(error)))


def _label(run: _Run, dataset: BenchDataset, entry: Entry, folder: Path, progress: ProgressFn) -> float | None:
    """Run an entry by its own settings; return its seconds an image, those of the run that did all the work at once."""
    record = folder.with_name(f"{folder.name}.json")
    was_begun = (folder / "run" / "job.json").is_file() and not run.overwrite
    groups, config = dataset.benchmark.groups, run.configs[entry.name]
    if entry.folder is None:
        network = folder.with_name(entry.network_of) if entry.network_of else None
        report = label_groups(
            groups, folder, config, checkpoint=network, train=entry.train, overwrite=run.overwrite, progress=progress
        )
    else:
        maps = _find_maps(dataset, entry.folder)
        report = refine_maps(groups, maps, folder, config, overwrite=run.overwrite, progress=progress)
    _refuse_gaps(report, dataset)
    seconds = None if was_begun else report.seconds / max(1, len(report.rows))
    if was_begun and record.is_file():
        stored = json.loads(record.read_text(encoding="utf-8")).get("seconds_per_image")
        return None if stored is None else float(stored)
    with open_atomic(record) as stream:
        stream.write(json.dumps({"seconds_per_image": seconds, "images": len(report.rows)}).encode())
    return seconds


def _refuse_gaps(report: LabelReport, dataset: BenchDataset) -> None:
    """A method that failed on images others could do must not look good on the rest."""
    failed = [row for row in report.rows if row.status is Status.FAILED and row.image_id not in dataset.unreadable]
    if failed:
        raise DataError(f"{count_of(len(failed), 'image')} failed, such as {failed[0].image_id}: {failed[0].reason}")


def _find_maps(dataset: BenchDataset, folder: Path) -> dict[str, Path]:
    """Maps of another program by image id, matched by relative path without suffix."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of maps; give FOLDER with FOLDER/<data set>/<group>/<image>.png")
    found = index_pictures(folder, "map")
    names = {
        image.id: PurePosixPath(image.output).with_suffix("").as_posix()
        for group in dataset.benchmark.groups
        for image in group.images
    }
    return {image_id: found[name] for image_id, name in names.items() if name in found}


def _outputs(dataset: BenchDataset, tree: Path) -> dict[str, Path]:
    return {image.id: tree / image.output for _, image in dataset.scored}


def _score(dataset: BenchDataset, predictions: Mapping[str, Path], pred_root: Path) -> Evaluation:
    missing = [
        image.id for _, image in dataset.scored if image.id not in predictions or not predictions[image.id].is_file()
    ]
    if missing:
        raise DataError(f"{len(missing)} of {len(dataset.scored)} images have no prediction, such as {missing[0]}")
    if not dataset.scored:
        raise DataError("no image with a ground truth can be read")
    pairs = tuple(
        Pair(name=image.id, group=group, pred=predictions[image.id], gt=dataset.benchmark.masks[image.id])
        for group, image in dataset.scored
    )
    pairing = Pairing(pred_root=pred_root, gt_root=pairs[0].gt.parent, pairs=pairs, extra=())
    return score_pairs(pairing, truth_rule=dataset.truth_rule)
