"""Groups to judge: true ones, ones with foreign images, ones thrown together; each a job whose cues are read back."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from umscosod.config import PipelineConfig
from umscosod.data.groups import groups_from_folder
from umscosod.data.masks import read_mask
from umscosod.data.resize import resize_mask
from umscosod.pipeline import label_groups
from umscosod.types import ImageGroup, ImageRef

MIXED, MIXED_SIZE, FOREIGN, SEED = 20, 14, 3, 7


_OLD_NAMES = {"inner_sides", "wholeness", "kinship", "nearness"}  # of what judge.py calls otherwise now


@dataclass(frozen=True)
class Case:
    """One judged group of a job: what it was made as, its cues, and each image's IoU and whether it is foreign."""

    job: str
    kind: str
    group: str
    group_cues: dict[str, float]
    mask_cues: list[dict[str, float]]
    iou: list[float]
    is_foreign: list[bool]


def run_jobs(data: Path, work: Path, config: PipelineConfig, same: str, *, train: bool) -> None:
    """Label the data sets as they are, each group with foreign images, and mixed groups each by itself."""
    thing = {name: names.split()[0] for names in same.split(";") for name in names.split()}
    sets = {path.name: groups_from_folder(path / "image") for path in sorted(data.iterdir()) if path.is_dir()}
    pool = [
        (thing.get(group.name, group.name), image)
        for groups in sets.values()
        for group in groups
        for image in group.images
    ]
    draw = random.Random(SEED)
    jobs: dict[str, list[ImageGroup]] = {}
    for name, groups in sets.items():
        jobs[f"true-{name}"] = list(groups)
        jobs[f"foreign-{name}"] = [
            _with_foreign(group, pool, thing.get(group.name, group.name), draw) for group in groups
        ]
        for group in groups:
            jobs[f"alone-{name}-{group.name}"] = [group]
    for number in range(MIXED):
        jobs[f"mixed-{number:02d}"] = [_make_group(f"mixed{number:02d}", _draw_mixed(pool, draw))]
    for name, groups in jobs.items():
        label_groups(groups, work / name, config, train=train)
        index = {image.output: str(image.path) for group in groups for image in group.images}
        (work / name / "images.json").write_text(json.dumps(index), encoding="utf-8")
        print(work.name, name, flush=True)


def _with_foreign(
    group: ImageGroup, pool: Sequence[tuple[str, ImageRef]], thing: str, draw: random.Random
) -> ImageGroup:
    foreign = draw.sample([image for other, image in pool if other != thing], FOREIGN)
    images = [*group.images, *foreign]
    draw.shuffle(images)
    return _make_group(group.name, images)


def _draw_mixed(pool: Sequence[tuple[str, ImageRef]], draw: random.Random) -> list[ImageRef]:
    """One image of each thing, then second ones, in any order."""
    things = sorted({thing for thing, _ in pool})
    draw.shuffle(things)
    chosen: list[ImageRef] = []
    while len(chosen) < MIXED_SIZE:
        wanted = things[len(chosen) % len(things)]
        chosen.append(draw.choice([image for thing, image in pool if thing == wanted and image not in chosen]))
    draw.shuffle(chosen)
    return chosen


def _make_group(name: str, images: Iterable[ImageRef]) -> ImageGroup:
    refs = [
        ImageRef(
            id=f"{name}/{at:02d}_{image.path.name}",
            path=image.path,
            output=f"{name}/{at:02d}_{image.path.stem}.png",
        )
        for at, image in enumerate(images)
    ]
    return ImageGroup(name=name, images=tuple(refs))


def read_cases(data: Path, work: Path) -> Iterable[Case]:
    """Cues and IoU of every finished job."""
    for index_file in sorted(work.glob("*/*/images.json")):
        out, index = index_file.parent, json.loads(index_file.read_text(encoding="utf-8"))
        for file in sorted((out / "run" / "cues").glob("*.json")):
            content = json.loads(file.read_text(encoding="utf-8"))
            if old := _OLD_NAMES & {name for cues in content["mask_cues"] for name in cues}:
                raise SystemExit(f"{file}: cues of an earlier version ({', '.join(sorted(old))}); make this job again")
            paths = [Path(index[name]) for name in content["outputs"]]
            home = max({path.parent for path in paths}, key=[path.parent for path in paths].count)
            yield Case(
                job=f"{out.parent.name}/{out.name}",
                kind=content["kind"],
                group=content["group"],
                group_cues=content["group_cues"],
                mask_cues=content["mask_cues"],
                iou=[_iou(out / "masks" / name, path) for name, path in zip(content["outputs"], paths, strict=True)],
                is_foreign=[path.parent != home for path in paths],
            )


def _iou(mask_file: Path, image: Path) -> float:
    truth_HW = read_mask(image.parents[2] / "gt" / image.parent.name / f"{image.stem}.png")
    mask_HW = resize_mask(read_mask(mask_file), (truth_HW.shape[0], truth_HW.shape[1]))
    return float((truth_HW & mask_HW).sum() / max(1, (truth_HW | mask_HW).sum()))


def is_made_as(case: Case, *kinds: str) -> bool:
    """Whether a case is of one of these kinds: true, foreign, alone, mixed."""
    return case.job.split("/")[1].split("-")[0] in kinds


def thing_of(case: Case) -> str:
    """Data set and group, whatever the backbone and the way it was composed."""
    return case.job.split("/")[1].split("-", 1)[1] + case.group if is_made_as(case, "true", "foreign") else case.group


def home_of(case: Case) -> str:
    """Data set of a group that was labelled alone; the job's name says it."""
    return case.job.split("/")[1].removeprefix("alone-").removesuffix(f"-{case.group}")
