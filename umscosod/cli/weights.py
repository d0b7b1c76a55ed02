"""Commands about models as files: those of ``umscosod weights``, and ``umscosod export-model``.

Heavy imports stay inside the functions.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import umscosod
from umscosod.cli import arguments as args
from umscosod.cli.console import ProgressBar, say
from umscosod.config import PipelineConfig
from umscosod.errors import ConfigError, count_of

if TYPE_CHECKING:
    from umscosod.features.hub import WeightsOffer

_HASH_DIGITS = 12
_MB = 1e6


def list_weights(command: args.WeightsList, _: PipelineConfig) -> int:
    """Print every backbone that has weights, as a table or as JSON."""
    offers = umscosod.list_weights()
    if command.json:
        rows = [{**dataclasses.asdict(offer), "path": offer.path and str(offer.path)} for offer in offers]
        say(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    table: list[tuple[str, ...]] = [("name", "size", "licence", "label-free", "sha256", "where")]
    table += [_row(offer) for offer in offers]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for offer in offers:
        if offer.note:
            say(f"note: {offer.name}: {offer.note}")
    say("\numscosod weights get NAME downloads; paper and small are the paper's pair and its smaller siblings")
    return 0


def _row(offer: WeightsOffer) -> tuple[str, ...]:
    return (
        offer.name,
        f"{offer.size_mb} MB",
        offer.licence or "?",
        {True: "yes", False: "no", None: "?"}[offer.is_label_free],
        offer.sha256[:_HASH_DIGITS] or "-",
        f"here: {offer.path}" if offer.path else f"at {offer.address}",
    )


def get_weights(command: args.WeightsGet, _: PipelineConfig) -> int:
    """Say what will be downloaded, ask once, download; 1 where the answer is no."""
    from umscosod.features.hub import plan_weights

    offers = plan_weights(command.names)
    missing = [offer for offer in offers if offer.path is None]
    for offer in missing:
        say(offer.describe())
    if missing and not command.yes and not _ask(sum(offer.size_mb for offer in missing)):
        say("nothing was downloaded")
        return 1
    with ProgressBar() as progress:
        stored = umscosod.get_weights(command.names, progress=progress)
    for weights in stored:
        here = "" if weights.is_new else "was here, "
        say(f"{weights.name}: {here}sha256 {weights.sha256[:_HASH_DIGITS]}: {weights.path}")
        for note in weights.notes:
            say(f"note: {note}")
    return 0


def _ask(size_mb: int) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("nobody can be asked here, as standard input is no terminal; pass --yes to download")
    say(f"download {size_mb} MB? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def verify_weights(_: args.WeightsVerify, __: PipelineConfig) -> int:
    """Print a line for each weight file that is here; 1 if one is bad."""
    with ProgressBar() as progress:
        checks = umscosod.verify_weights(progress=progress)
    for check in checks:
        say(f"{'ok ' if check.is_sound else 'BAD'}  {check.name}  {check.message}")
    if not checks:
        say("no weights are on this machine; run: umscosod weights get paper")
    return int(any(not check.is_sound for check in checks))


def import_weights(command: args.WeightsImport, _: PipelineConfig) -> int:
    """Import a file, and say under which name."""
    stored = umscosod.import_weights(command.file, command.name, link=command.link)
    say(f"{stored.name}: sha256 {stored.sha256[:_HASH_DIGITS]}: {stored.path}")
    for note in stored.notes:
        say(f"note: {note}")
    return 0


def export_model(command: args.ExportModel, config: PipelineConfig) -> int:
    """Export a trained model, and say what was written, how exact it is, and what int8 costs."""
    with ProgressBar() as progress:
        report = umscosod.export_model(
            command.checkpoint, command.out, config, int8=command.int8, images=command.images, progress=progress
        )
    for note in report.notes:
        say(f"note: {note}")
    for name, difference in report.differences.items():
        say(f"{name}.onnx: within {difference:.1e} of torch")
    if (loss := report.loss) is not None:
        say(
            f"int8, on {count_of(loss.images, 'picture')}: maps differ by {loss.mean_difference:.4f} in the mean, "
            f"{loss.largest_difference:.3f} at most; IoU of masks {loss.mean_iou:.4f} in the mean, "
            f"{loss.least_iou:.3f} at least"
        )
    size_mb = sum(report.files.values()) / _MB
    say(f"{count_of(len(report.files), 'file')}, {size_mb:.1f} MB: {report.out}")
    return 0
