"""Does the confidence rank, and are mixed groups and images without the object noticed? Also makes the calibration.

Run ``python benchmarks/confidence.py DATA --work FOLDER [--backbone NAME [--weights FILE]] [--no-train]`` once per
backbone, then ``python benchmarks/confidence.py DATA --work FOLDER --write`` to fit and report on all that lies in
FOLDER. DATA holds ``NAME/image/GROUP`` and ``NAME/gt/GROUP``; ``--same`` lists groups that show the same thing.
Finished jobs are kept: a second call only reads them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import rankdata, spearmanr

from umscosod.config import ConfidenceConfig, PipelineConfig
from umscosod.config_io import load_config
from umscosod.data.groups import groups_from_folder
from umscosod.data.masks import read_mask
from umscosod.data.resize import resize_mask
from umscosod.pipeline import label_groups
from umscosod.types import ImageGroup, ImageRef

MIXED, MIXED_SIZE, FOREIGN, SEED = 20, 14, 3, 7
SETTINGS = ConfidenceConfig()
LOW = SETTINGS.low
RIDGE = {"mask": 0.02, "group": 0.02, "image": 0.02}
CUES = {
    "mask": (
        *("inner_sides", "inner_outline", "compactness", "wholeness", "size", "centrality", "colour_contrast"),
        *("separation", "agreement"),
    ),
    "group": ("closeness", "closer_than_background", "common_contrast", "match"),
    "image": ("nearness", "likeness"),
}
SAME = "bird Bird duck_goose parrot;cat Cat leopard;boat Boat;aeroplane Aero;bus Bus;sign road_sign;flower poppy"


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


def main() -> None:
    """Run what is asked for, fit, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--backbone", default="")
    parser.add_argument("--weights", default="")
    parser.add_argument("--no-train", action="store_true")
    parser.add_argument("--same", default=SAME)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.backbone:
        overrides = {"features.backbone": asked.backbone, "features.weights": asked.weights}
        config = load_config("fast", overrides={**overrides, "confidence.mixed": "flag", "confidence.absent": "flag"})
        run_jobs(asked.data, asked.work / asked.backbone, config, asked.same, train=not asked.no_train)
        return
    cases = list(read_cases(asked.data, asked.work))
    report(cases)
    if asked.write:
        target = Path(__file__).parents[1] / "umscosod" / "confidence" / "calibration.json"
        made = "python benchmarks/confidence.py DATA --work FOLDER --write"
        target.write_text(json.dumps({"made": made, "models": fit_all(cases)}, indent=1) + "\n", encoding="utf-8")


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


def fit_model(
    rows: Sequence[dict[str, float]], target: Sequence[float], what: str, weight: Any = None
) -> dict[str, Any]:
    """Logistic regression on standardised cues, clipped at 3, weights not negative, with a ridge."""
    names = CUES[what]
    values = np.array([[row[name] for name in names] for row in rows])
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    z, wanted = np.clip((values - mean) / scale, -3, 3), np.asarray(target, float)
    share = np.ones(len(wanted)) / len(wanted) if weight is None else np.asarray(weight) / np.sum(weight)

    def loss(parameters: Any) -> tuple[float, Any]:
        logit = z @ parameters[:-1] + parameters[-1]
        error = share * (1 / (1 + np.exp(-logit)) - wanted)
        value = share @ (np.logaddexp(0, logit) - wanted * logit) + RIDGE[what] / 2 * (parameters[:-1] ** 2).sum()
        return value, np.append(error @ z + RIDGE[what] * parameters[:-1], error.sum())

    bounds = [(0, None)] * len(names) + [(None, None)]
    found = minimize(loss, np.zeros(len(names) + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    cues = {
        name: {"mean": round(float(m), 5), "scale": round(float(s), 5), "weight": round(float(w), 4)}
        for name, m, s, w in zip(names, mean, scale, found[:-1], strict=True)
    }
    return {"bias": round(float(found[-1]), 4), "cues": cues}


def predict(model: dict[str, Any], row: dict[str, float]) -> float:
    """The model's estimate, as `umscosod.confidence.model` makes it."""
    logit = model["bias"] + sum(
        cue["weight"] * np.clip((row[name] - cue["mean"]) / cue["scale"], -3, 3) for name, cue in model["cues"].items()
    )
    return float(1 / (1 + np.exp(-logit)))


def fit_all(cases: Sequence[Case]) -> dict[str, Any]:
    """All the models of ``calibration.json``."""
    models = {"mask": fit_masks([case for case in cases if _is(case, "true")])}
    for kind in ("plain", "whitened"):
        of_kind = [case for case in cases if case.kind == kind]
        models[f"group-{kind}"] = fit_groups([case for case in of_kind if _is(case, "alone", "mixed")])
        models[f"image-{kind}"] = fit_images([case for case in of_kind if _is(case, "foreign")])
    return models


def _is(case: Case, *kinds: str) -> bool:
    return case.job.split("/")[1].split("-")[0] in kinds


def fit_masks(cases: Sequence[Case]) -> dict[str, Any]:
    """Model of the IoU."""
    rows = [(cues, iou) for case in cases for cues, iou in zip(case.mask_cues, case.iou, strict=True) if cues]
    return fit_model([cues for cues, _ in rows], [iou for _, iou in rows], "mask")


def fit_groups(cases: Sequence[Case]) -> dict[str, Any]:
    """Model of true against mixed groups, either as likely as the other."""
    is_true = np.array([not _is(case, "mixed") for case in cases])
    weight = np.where(is_true, 1 / is_true.sum(), 1 / (~is_true).sum())
    return fit_model([case.group_cues for case in cases], is_true, "group", weight)


def fit_images(cases: Sequence[Case]) -> dict[str, Any]:
    """Model of members against foreign images, either as likely as the other."""
    rows = [
        (cues, is_foreign)
        for case in cases
        for cues, is_foreign in zip(case.mask_cues, case.is_foreign, strict=True)
        if "nearness" in cues
    ]
    member = np.array([not is_foreign for _, is_foreign in rows])
    weight = np.where(member, 1 / member.sum(), 1 / (~member).sum())
    return fit_model([cues for cues, _ in rows], member, "image", weight)


def leave_out(train: Sequence[Case], test: Sequence[Case], fit: Callable[[Sequence[Case]], dict[str, Any]]) -> Any:
    """Yield each tested case with a model that has not seen its group."""
    for case in test:
        yield case, fit([other for other in train if _thing(other) != _thing(case)])


def _thing(case: Case) -> str:
    """Data set and group, whatever the backbone and the way it was composed."""
    return case.job.split("/")[1].split("-", 1)[1] + case.group if _is(case, "true", "foreign") else case.group


def auroc(score: Any, is_good: Any) -> float:
    """Area under the ROC curve; ties count half."""
    rank, good = rankdata(score), np.asarray(is_good)
    count = good.sum()
    return float((rank[good].sum() - count * (count + 1) / 2) / (count * (~good).sum()))


def report(cases: Sequence[Case]) -> None:
    """Print the figures, every group judged by a model that has not seen it."""
    true = [case for case in cases if _is(case, "true")]
    backbones = sorted({case.job.split("/")[0] for case in true})
    print("confidence: calibrated on / judged | Spearman | AUROC IoU<.5 | mean |error|")
    for train in [*backbones, "all"]:
        known = [case for case in true if train in (case.job.split("/")[0], "all")]
        for test in backbones:
            rows = [
                (predict(model, cues), iou)
                for case, model in leave_out(known, [c for c in true if c.job.startswith(test + "/")], fit_masks)
                for cues, iou in zip(case.mask_cues, case.iou, strict=True)
                if cues
            ]
            guess, iou = np.array(rows).T
            error = np.abs(guess - iou).mean()
            rank, area = spearmanr(guess, iou).statistic, auroc(guess, iou >= 0.5)
            print(f"{train} / {test} | {rank:.3f} | {area:.3f} | {error:.3f}")
    for kind in sorted({case.kind for case in cases}):
        of_kind = [case for case in cases if case.kind == kind]
        _report_groups(kind, [case for case in of_kind if _is(case, "alone", "mixed")])
        _report_images(kind, [case for case in of_kind if _is(case, "foreign")])
    for backbone in backbones:
        _report_outcome(backbone, [case for case in cases if case.job.startswith(backbone + "/")], cases)


def _report_outcome(name: str, cases: Sequence[Case], known: Sequence[Case]) -> None:
    """What a person sees: confidences after both doubts, at the levels of the settings."""
    seen: dict[str, list[tuple[float, float, bool]]] = {"true": [], "foreign": [], "mixed": []}
    hits, kinds = [], {case.job: case.kind for case in cases}
    for case in cases:
        kind = next((kind for kind in seen if _is(case, kind)), "")
        if not kind:
            continue
        thing = _thing(case)
        models = _fit_without(known, thing, kinds[case.job])
        rows = list(zip(_confidences(case, models), case.iou, case.is_foreign, strict=True))
        seen[kind] += rows
        if kind == "foreign":
            hits.append(sum(value < LOW for value, _, is_foreign in rows if is_foreign) >= 2)
    for kind, rows in seen.items():
        guess, iou, is_foreign = (np.array(column) for column in zip(*rows, strict=True))
        if kind == "true":
            rank, area = spearmanr(guess, iou).statistic, auroc(guess, iou >= 0.5)
            print(
                f"outcome, {name}, true groups: Spearman {rank:.3f}, AUROC {area:.3f}, low {(guess < LOW).mean():.2f}"
            )
        elif kind == "foreign":
            print(
                f"outcome, {name}, 3 foreign images: low {(guess[is_foreign] < LOW).mean():.2f}, at least 2 of 3 in "
                f"{np.mean(hits):.2f} of groups, low members {(guess[~is_foreign] < LOW).mean():.2f}"
            )
        else:
            print(f"outcome, {name}, mixed groups: low {(guess < LOW).mean():.2f}")


def _fit_without(known: Sequence[Case], thing: str, kind: str) -> dict[str, Any]:
    """Models that have not seen a group; those of all groups are made once for each name."""
    if (thing, kind) not in _FITTED:
        rest = [case for case in known if _thing(case) != thing and f"{_home(case)}{case.group}" != thing]
        of_kind = [case for case in rest if case.kind == kind]
        _FITTED[thing, kind] = {
            "mask": fit_masks([case for case in rest if _is(case, "true")]),
            "group": fit_groups([case for case in of_kind if _is(case, "alone", "mixed")]),
            "image": fit_images([case for case in of_kind if _is(case, "foreign")]),
        }
    return _FITTED[thing, kind]


_FITTED: dict[tuple[str, str], dict[str, Any]] = {}


def _home(case: Case) -> str:
    """Data set of a group that was labelled alone; the job's name says it."""
    return case.job.split("/")[1].removeprefix("alone-").removesuffix(f"-{case.group}")


def _confidences(case: Case, models: dict[str, Any]) -> list[float]:
    usable = sum(bool(cues) for cues in case.mask_cues)
    is_mixed = usable >= SETTINGS.mixed_images and predict(models["group"], case.group_cues) < SETTINGS.mixed_level
    values = []
    for cues in case.mask_cues:
        value = predict(models["mask"], cues) if cues else 0.0
        is_unlike = "nearness" in cues and predict(models["image"], cues) < SETTINGS.absent_level
        cap = LOW * (SETTINGS.doubt_cap + (1.0 - SETTINGS.doubt_cap) * value)
        values.append(min(value, cap) if is_mixed or is_unlike else value)
    return values


def _report_groups(kind: str, cases: Sequence[Case]) -> None:
    scores = [
        (predict(model, case.group_cues), not _is(case, "mixed")) for case, model in leave_out(cases, cases, fit_groups)
    ]
    guess, is_true = np.array([score for score, _ in scores]), np.array([truth for _, truth in scores])
    print(f"groups, {kind}: AUROC {auroc(guess, is_true):.3f}")
    for level in (0.2, 0.3, 0.35, 0.4, 0.5):
        print(
            f"  level {level}: mixed flagged {(guess[~is_true] < level).mean():.2f}, true flagged "
            f"{(guess[is_true] < level).mean():.2f}"
        )


def _report_images(kind: str, cases: Sequence[Case]) -> None:
    rows = [
        (predict(model, cues), not is_foreign)
        for case, model in leave_out(cases, cases, fit_images)
        for cues, is_foreign in zip(case.mask_cues, case.is_foreign, strict=True)
        if "nearness" in cues
    ]
    guess, member = np.array([score for score, _ in rows]), np.array([truth for _, truth in rows])
    print(f"images, {kind}: AUROC {auroc(guess, member):.3f}")
    for level in (0.1, 0.2, 0.3, 0.4, 0.5):
        print(
            f"  level {level}: foreign found {(guess[~member] < level).mean():.2f}, members doubted "
            f"{(guess[member] < level).mean():.3f}"
        )


if __name__ == "__main__":
    main()
