"""What a GPU gains: encoders against the CPU, images a second by stage, peak memory, a short training.

    python -m benchmarks.gpu IMAGES [--device cuda] [--count N] [--backbone NAME] [--weights FILE] [--out FILE]

IMAGES holds one sub-folder a group. Prints a Markdown table; --out gets the same as JSON. With the default count a few
minutes. ``--device cpu --count 4`` runs through the same steps without a GPU: of use to try the script only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from umscosod.config import PipelineConfig
from umscosod.config.io import load_config
from umscosod.data.groups import find_groups
from umscosod.data.images import decode_image
from umscosod.device import count_cores, resolve_device
from umscosod.errors import UmscosodError
from umscosod.features.backbone import build_backbones
from umscosod.pipeline import label_groups, refine_maps
from umscosod.progress import stage_name
from umscosod.types import ImageGroup

Figures = dict[str, Any]

ENCODED = 8  # pictures whose tokens of both devices are compared
STEPS = 100  # of training


@dataclass(kw_only=True, slots=True)
class Clock:
    """A progress callback that adds up time by stage, and on CUDA notes the peak of memory of each."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    peaks_gb: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _since: float = 0.0

    def __call__(self, done: int, total: int, stage: str) -> None:
        """Begin a stage, or end the one that is at work."""
        name = stage_name(stage)
        if name != self._stage:
            self._end()
            self._stage, self._since = name, time.perf_counter()
        if done == total:
            self._end()

    def _end(self) -> None:
        if not self._stage:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            peak = torch.cuda.max_memory_allocated(self.device) / 2**30
            self.peaks_gb[self._stage] = max(peak, self.peaks_gb.get(self._stage, 0.0))
            torch.cuda.reset_peak_memory_stats(self.device)
        passed = time.perf_counter() - self._since
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + passed
        self._stage = ""


def take(groups: Sequence[ImageGroup], count: int) -> tuple[ImageGroup, ...]:
    """The first groups, up to so many images; the last may lose some."""
    taken: list[ImageGroup] = []
    for group in groups:
        if left := count - sum(len(one.images) for one in taken):
            taken.append(replace(group, images=group.images[:left]))
    return tuple(taken)


def compare_encoders(groups: Sequence[ImageGroup], config: PipelineConfig, device: torch.device) -> Figures:
    """Cosines of the tokens of a device, in its own arithmetic, to those of the CPU in float32: mean and least."""
    paths = [image.path for group in groups for image in group.images][:ENCODED]
    pictures = [decode_image(path) for path in paths]
    exact = replace(config.features, precision="float32")
    pairs = [build_backbones(exact, torch.device("cpu")), build_backbones(config.features, device)]
    figures: Figures = {}
    for ours, theirs in zip(*(pair.both for pair in pairs), strict=True):
        cosines = []
        for one, other in zip(ours.encode(pictures), theirs.encode(pictures), strict=True):
            a_PD, b_PD = one.tokens_PD.astype(np.float64), other.tokens_PD.astype(np.float64)
            norms_P = np.linalg.norm(a_PD, axis=1) * np.linalg.norm(b_PD, axis=1)
            cosines.append((a_PD * b_PD).sum(axis=1)[norms_P > 0] / norms_P[norms_P > 0])
        whole = np.concatenate(cosines)
        figures[ours.name] = {"mean_cosine": float(whole.mean()), "least_cosine": float(whole.min())}
    return figures


def time_stages(groups: tuple[ImageGroup, ...], config: PipelineConfig, device: torch.device, scratch: Path) -> Figures:
    """Label with training, cold cache; then refine the maps once more, there and by the processes of the CPU."""
    count = sum(len(group.images) for group in groups)
    clock, cpu_clock = Clock(device=device), Clock(device=torch.device("cpu"))
    report = label_groups(groups, scratch / "out", config, train=True, progress=clock)
    on_cpu = replace(config, device="cpu")
    refine_maps(groups, scratch / "out", scratch / "there", config)
    refine_maps(groups, scratch / "out", scratch / "cpu", on_cpu, progress=cpu_clock)
    masks = [
        [
            decode_image(scratch / name / "masks" / image.output)[..., 0] > 0
            for group in groups
            for image in group.images
        ]
        for name in ("there", "cpu")
    ]
    return {
        "images": count,
        "labelled": sum(row.status.value == "labelled" for row in report.rows),
        "seconds": clock.seconds,
        "images_per_second": {name: count / seconds for name, seconds in clock.seconds.items() if name != "training"},
        "refinement_by_processes_images_per_second": count / cpu_clock.seconds["refinement"],
        "peak_gb": clock.peaks_gb,
        "pixels_that_differ": float(np.mean([(a != b).mean() for a, b in zip(*masks, strict=True)])),
    }


def as_table(figures: Figures) -> str:
    """Markdown."""
    stages = figures["stages"]
    lines = ["| what | figure | peak GPU memory |", "| --- | --- | --- |"]
    for name, cosines in figures["encoders"].items():
        lines.append(f"| `{name}` against the CPU | cosine {cosines['mean_cosine']:.5f}, least "
                     f"{cosines['least_cosine']:.5f} | |")  # fmt: skip
    for name, seconds in stages["seconds"].items():
        pace = stages["images_per_second"].get(name)
        what = f"{seconds:.1f} s" if pace is None else f"{pace:.1f} images/s"
        peak = f"{stages['peak_gb'][name]:.2f} GB" if name in stages["peak_gb"] else ""
        lines.append(f"| {name} | {what} | {peak} |")
    by_processes = stages["refinement_by_processes_images_per_second"]
    lines.append(f"| refinement, the processes of {figures['cores']} cores | {by_processes:.1f} images/s | |")
    lines.append(f"| pixels that this changes | {100.0 * stages['pixels_that_differ']:.2f} % | |")
    return "\n".join([f"{stages['images']} images, {figures['device']}, torch {figures['torch']}", "", *lines])


def measure(images: Path, config: PipelineConfig, count: int) -> Figures:
    """All figures."""
    device = resolve_device(config.device)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        groups = take(find_groups(images, scratch / "out"), count)
        features = replace(config.features, cache_dir=str(scratch / "cache"))
        config = replace(config, features=features, train=replace(config.train, epochs=1, min_steps=STEPS))
        return {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "cores": count_cores(),
            "torch": torch.__version__,
            "encoders": compare_encoders(groups, config, device),
            "stages": time_stages(groups, config, device, scratch),
        }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--weights", default="")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    settings = {"features.backbone": given.backbone, "features.weights": given.weights, "device": given.device}
    try:
        figures = measure(given.images, load_config("fast", overrides=settings), given.count)
    except UmscosodError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(as_table(figures))
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
