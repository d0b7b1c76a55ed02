"""Commands of ``umscosod``: each takes its parsed arguments, calls the library and returns an exit code.

Heavy imports stay inside the functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import umscosod
from umscosod.cli import arguments as args
from umscosod.cli.console import ProgressBar, format_label_report, format_train_report, say
from umscosod.cli.options import Command
from umscosod.cli.studies import ablate, bench, pretrain
from umscosod.cli.weights import export_model, get_weights, import_weights, list_weights, verify_weights
from umscosod.config import PipelineConfig
from umscosod.config.io import dump_config, load_config, preset_names, preset_values
from umscosod.data.files import check_place
from umscosod.device import launched_as
from umscosod.errors import ConfigError, DataError, count_of
from umscosod.types import Status

if TYPE_CHECKING:
    from umscosod.features.cache import FeatureCache
    from umscosod.pipeline import LabelReport
    from umscosod.types import ImageGroup

_LISTED = 20


def discover(command: args.Discover, config: PipelineConfig) -> int:
    """Propose groups, write the list, and say how large and how alike they are; 1 if images could not be read."""
    from umscosod.data.groups import groups_from_images
    from umscosod.grouping.discover import check_listable, discover_groups, write_groups_csv

    if command.out.suffix.lower() != ".csv":
        raise DataError(f"--out {command.out} must end in .csv, by which the other commands know a list")
    check_place(command.out.parent)
    if command.out.exists() and not command.overwrite:  # before the work, not only after it
        raise DataError(f"--out {command.out} is there, and may hold corrections; choose another, or pass --overwrite")
    images = groups_from_images(command.images)
    check_listable(images, command.out)
    with ProgressBar() as progress:
        found = discover_groups(
            images, n_groups=command.n_groups, config=config, grouping=command.grouping, progress=progress
        )
    say("".join(f"note: {note}\n" for note in found.notes), end="")
    for image_id, reason in found.failures.items():
        say(f"failed: {image_id}: {reason}")
    path = write_groups_csv(found.groups, command.out, overwrite=command.overwrite)
    for group, check in zip(found.groups, found.checks, strict=True):
        remark = f"  ({check.reason})" if check.reason else ""
        say(f"{group.name}  {check.size:5} images  cohesion {check.cohesion:.3f}{remark}")
    if found.leftover:
        say(f"like no group, and not in the list: {len(found.leftover)}")
        say("\n".join(f"  {image.id}" for image in found.leftover[:_LISTED]))
    if len(found.leftover) > _LISTED:
        say(f"  ... and {len(found.leftover) - _LISTED} more")
    grouped = sum(len(group.images) for group in found.groups)
    say(f"{count_of(grouped, 'image')} in {count_of(len(found.groups), 'group')}: {path}")
    return int(bool(found.failures))


_GB = 1e9


def run(command: Command, config: PipelineConfig) -> int:
    """Carry out a command.

    Returns
    -------
    int
        Exit code: 0 all well, 1 something failed, 3 nothing was labelled.

    Raises
    ------
    UmscosodError
        It cannot be done.
    """
    _, size = launched_as()
    if size > 1 and not isinstance(command, args.Train):
        raise ConfigError(
            f"WORLD_SIZE is {size}, but only 'umscosod train' is done by several processes; start this command without "
            "torchrun, or unset WORLD_SIZE"
        )
    return _RUNNERS[type(command)](command, config)


def _label(command: args.Label, config: PipelineConfig) -> int:
    choice = "never" if command.no_train else command.train
    if command.no_train and command.train == "always":
        raise ConfigError("--no-train and --train always contradict each other; give one")
    if command.checkpoint is not None and choice != "auto":
        raise ConfigError(
            f"--checkpoint and --train {choice} contradict each other: the network of a checkpoint is used as it is; "
            "give one"
        )
    with command.open_engine() as engine, ProgressBar() as progress:
        report = umscosod.label_groups(
            command.images,
            command.out,
            config,
            checkpoint=command.checkpoint,
            train={"auto": None, "always": True, "never": False}[choice],
            examples=command.examples,
            overwrite=command.overwrite,
            engine=engine,
            progress=progress,
        )
    return _finish(report)


def _steer(command: args.Steer, config: PipelineConfig) -> int:
    if command.undo == (command.examples is not None):
        raise ConfigError("give either --examples, or --undo to take the last relabelling back")
    if command.examples is None:
        report = umscosod.undo_relabel(command.results)
        say(f"taken back: {count_of(len(report.changed), 'mask')} changed, {report.seconds:.1f} s")
        return 0
    names = None if command.groups is None else [name.strip() for name in command.groups.split(",")]
    with ProgressBar() as progress:
        report = umscosod.relabel(
            command.results,
            command.examples,
            groups=names,
            examples_for=command.examples_for,
            mask_value=command.mask_value,
            progress=progress,
        )
    for note in report.notes:
        say(note)
    say(f"{count_of(len(report.choices), 'group')} relabelled, {report.seconds:.1f} s; see {report.out / 'index.html'}")
    return 0


def _pseudo(command: args.Pseudo, config: PipelineConfig) -> int:
    with ProgressBar() as progress:
        report = umscosod.make_pseudo_labels(
            command.images, command.out, config, overwrite=command.overwrite, progress=progress
        )
    return _finish(report)


def _train(command: args.Train, config: PipelineConfig) -> int:
    with ProgressBar() as progress:
        report = umscosod.train(
            command.images, command.pseudo, command.out, config, overwrite=command.overwrite, progress=progress
        )
    if launched_as()[0] > 0:  # the first says it, and its exit code counts: another one would end the first's work
        return 0
    say(format_train_report(report))
    return int(any(row.status is Status.FAILED for row in report.rows))


def _predict(command: args.Predict, config: PipelineConfig) -> int:
    with command.open_engine() as engine, ProgressBar() as progress:
        report = umscosod.predict(
            command.images,
            command.out,
            command.checkpoint,
            config,
            overwrite=command.overwrite,
            engine=engine,
            progress=progress,
        )
    return _finish(report)


def _refine(command: args.Refine, config: PipelineConfig) -> int:
    with ProgressBar() as progress:
        report = umscosod.refine_maps(
            command.images, command.maps, command.out, config, overwrite=command.overwrite, progress=progress
        )
    return _finish(report)


def _finish(report: LabelReport) -> int:
    say(format_label_report(report))
    return report.exit_code


def _evaluate(command: args.Evaluate, _: PipelineConfig) -> int:
    from umscosod.evaluation import format_table, list_worst_first, scores_to_json
    from umscosod.evaluation.scoring import make_finite

    if command.worst < 0:
        raise ConfigError(f"--worst must be >= 0, got {command.worst}")
    with ProgressBar() as progress:
        evaluation = umscosod.evaluate(
            command.pred,
            command.gt,
            definition=command.definition,
            mask_value=command.mask_value,
            progress=progress,
        )
    if command.json:
        say(json.dumps(make_finite(scores_to_json(evaluation)), indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    say(format_table(evaluation))
    if command.worst:
        say("\nlowest IoU first:")
        for image in list_worst_first(evaluation)[: command.worst]:
            say(f"  {image.iou:.4f}  {image.name}")
    return 0


def _export(command: args.Export, _: PipelineConfig) -> int:
    from umscosod.export.formats import export_results

    groups = None if command.images is None else _find_groups(command.images)
    with ProgressBar() as progress:
        report = export_results(
            command.results,
            command.to,
            command.format,
            images=groups,
            image_root=command.images if command.images is None or command.images.is_dir() else command.images.parent,
            category=command.category,
            per_group=command.per_group,
            per_region=command.per_region,
            overwrite=command.overwrite,
            progress=progress,
        )
    say(report.summary)
    return int(bool(report.skipped)) if report.n_images else 3


def _features_estimate(command: args.FeaturesEstimate, config: PipelineConfig) -> int:
    from umscosod.data.images import decode_image
    from umscosod.device import resolve_device
    from umscosod.features.backbone import build_backbones
    from umscosod.features.cache import format_bytes
    from umscosod.features.group import STREAMS, stream_arrays

    groups = _find_groups(command.images)
    images = [image for group in groups for image in group.images]
    pair = build_backbones(config.features, resolve_device(config.device))
    data = config.data
    for image in images:
        try:
            picture_HW3 = decode_image(image.path, max_pixels=data.max_pixels, min_side_px=data.min_side_px)
        except DataError:  # `encode` names it; one sound image is enough here
            continue
        kept = [
            stream_arrays(backbone.encode([picture_HW3])[0], stream)
            for stream, backbone in zip(STREAMS, pair.both, strict=True)
        ]
        break
    else:
        raise DataError(f"{command.images}: none of {len(images)} images can be decoded; check the files")
    each = sum(array.nbytes for arrays in kept for array in arrays.values()) + 3 * config.features.size_px**2
    stats = _cache(config).stats()
    say("\n".join(pair.notes))
    total = format_bytes(each * len(images))
    say(f"{count_of(len(images), 'image')} in {count_of(len(groups), 'group')}, {format_bytes(each)} each: {total}")
    say(
        f"cache {stats.root}: {count_of(stats.files, 'file')}, {format_bytes(stats.bytes)}; "
        f"{format_bytes(stats.free_bytes)} free"
    )
    return 0


def _features_encode(command: args.FeaturesEncode, config: PipelineConfig) -> int:
    from umscosod.device import resolve_device
    from umscosod.features.backbone import build_backbones
    from umscosod.features.cache import format_bytes
    from umscosod.features.collection import encode_collection
    from umscosod.features.remote import fetch_copies

    if not config.features.use_cache:
        raise ConfigError("features.use_cache is off, so that there is no cache to encode into; leave it on")
    groups = _find_groups(command.images)
    pair = build_backbones(config.features, resolve_device(config.device))
    cache = _cache(config)
    with ProgressBar() as progress:
        found, lost = fetch_copies(groups, cache, progress)
        collection = encode_collection(found, pair, config, cache, lost=lost, progress=progress)
    total = sum(len(group.images) for group in groups)
    for image_id, reason in collection.failures.items():
        say(f"failed: {image_id}: {reason}")
    stats = cache.stats()
    say("\n".join(pair.notes))
    say(f"{total - len(collection.failures)} of {count_of(total, 'image')} encoded")
    say(f"cache {stats.root}: {count_of(stats.files, 'file')}, {format_bytes(stats.bytes)}")
    return 3 if len(collection.failures) == total else int(bool(collection.failures))


def _features_prune(command: args.FeaturesPrune, _: PipelineConfig) -> int:
    from umscosod.features.cache import FeatureCache, format_bytes

    if not 0 <= command.max_gb <= 1e9:  # 1e18 bytes: no disk is larger; nan is refused too
        raise ConfigError(f"--max-gb must be a number of GB from 0 to 1e9, got {command.max_gb}")
    cache = FeatureCache(command.cache_dir)
    report = cache.prune(int(command.max_gb * _GB))
    removed = f"{count_of(report.removed_files, 'file')} removed ({format_bytes(report.removed_bytes)})"
    say(f"cache {cache.root}: {removed}, {report.kept_files} kept ({format_bytes(report.kept_bytes)})")
    return 0


def _find_groups(images: Path) -> list[ImageGroup]:
    from umscosod.data.groups import groups_from_images

    return groups_from_images(images)


def _cache(config: PipelineConfig) -> FeatureCache:
    from umscosod.features.cache import FeatureCache

    return FeatureCache(Path(config.features.cache_dir) if config.features.cache_dir else None)


def _doctor(_: args.Doctor, __: PipelineConfig) -> int:
    from umscosod.doctor import format_checks, run_checks

    checks = run_checks()
    say(format_checks(checks))
    return int(any(check.ok is False for check in checks))


def _presets(command: args.Presets, _: PipelineConfig) -> int:
    if command.name is not None:
        say(dump_config(load_config(command.name)), end="")
        return 0
    for name in preset_names():
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in preset_values(name).items()}
        say(f"# {name}\n{yaml.safe_dump(values, sort_keys=False)}")
    return 0


def _plugin_install(command: args.PluginInstall, _: PipelineConfig) -> int:
    from umscosod.integrations.plugin_link import find_plugin_source, install_plugin

    link = install_plugin(overwrite=command.overwrite)
    say(f"{link} -> {find_plugin_source()}\nrestart the App; 'fiftyone operators list' shows the operators")
    return 0


def _plugin_info(_: args.PluginInfo, __: PipelineConfig) -> int:
    from umscosod.integrations.plugin_link import LINK_NAME, find_plugin_source, find_plugins_dir, is_installed

    state = "linked" if is_installed() else "not linked; run: umscosod plugin install"
    say(f"plugin           {find_plugin_source()}\nFiftyOne's link  {find_plugins_dir() / LINK_NAME}\n{state}")
    return 0


_RUNNERS: Mapping[type, Callable[[Any, PipelineConfig], int]] = {
    args.Label: _label,
    args.Steer: _steer,
    args.Pseudo: _pseudo,
    args.Train: _train,
    args.Predict: _predict,
    args.Refine: _refine,
    args.Evaluate: _evaluate,
    args.Bench: bench,
    args.Ablate: ablate,
    args.Export: _export,
    args.ExportModel: export_model,
    args.Discover: discover,
    args.Pretrain: pretrain,
    args.FeaturesEstimate: _features_estimate,
    args.FeaturesEncode: _features_encode,
    args.FeaturesPrune: _features_prune,
    args.WeightsList: list_weights,
    args.WeightsGet: get_weights,
    args.WeightsVerify: verify_weights,
    args.WeightsImport: import_weights,
    args.Doctor: _doctor,
    args.Presets: _presets,
    args.PluginInstall: _plugin_install,
    args.PluginInfo: _plugin_info,
}
