"""Does the confidence rank, and are mixed groups and images without the object noticed? Also makes the calibration.

Run ``python -m benchmarks.confidence DATA --work FOLDER [--backbone NAME [--weights FILE]] [--no-train]`` once per
backbone, then ``python -m benchmarks.confidence DATA --work FOLDER --write`` to fit and report on all that lies in
FOLDER. DATA holds ``NAME/image/GROUP`` and ``NAME/gt/GROUP``; ``--same`` lists groups that show the same thing.
Finished jobs are kept: a second call only reads them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from benchmarks.confidence.cases import Case, is_made_as, read_cases, run_jobs, thing_of
from benchmarks.confidence.fit import fit_all, fit_groups, fit_images, fit_masks, fit_without, leave_out
from umscosod.confidence.judge import UNLIKE_CAP, CueModel
from umscosod.config import ConfidenceConfig
from umscosod.config.io import load_config

SETTINGS = ConfidenceConfig()
LOW = SETTINGS.low
SAME = "bird Bird duck_goose parrot;cat Cat leopard;boat Boat;aeroplane Aero;bus Bus;sign road_sign;flower poppy"


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
        target = Path(__file__).parents[2] / "umscosod" / "confidence" / "calibration.json"
        made = "python -m benchmarks.confidence DATA --work FOLDER --write"
        target.write_text(json.dumps({"made": made, "models": fit_all(cases)}, indent=1) + "\n", encoding="utf-8")


def auroc(score: Any, is_good: Any) -> float:
    """Area under the ROC curve; ties count half."""
    rank, good = rankdata(score), np.asarray(is_good)
    count = good.sum()
    return float((rank[good].sum() - count * (count + 1) / 2) / (count * (~good).sum()))


def report(cases: Sequence[Case]) -> None:
    """Print the figures, every group judged by a model that has not seen it."""
    true = [case for case in cases if is_made_as(case, "true")]
    backbones = sorted({case.job.split("/")[0] for case in true})
    print("confidence: calibrated on / judged | Spearman | AUROC IoU<.5 | mean |error|")
    for train in backbones:
        known = [case for case in true if case.job.startswith(train + "/")]
        for test in backbones:
            rows = [
                (model.estimate(cues), iou)
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
        _report_groups(kind, [case for case in of_kind if is_made_as(case, "alone", "mixed")])
        _report_images(kind, [case for case in of_kind if is_made_as(case, "foreign")])
    for backbone in backbones:
        _report_outcome(backbone, [case for case in cases if case.job.startswith(backbone + "/")], cases)


def _report_outcome(name: str, cases: Sequence[Case], known: Sequence[Case]) -> None:
    """What a person sees: confidences after the doubt about images, at the level of the settings."""
    seen: dict[str, list[tuple[float, float, bool]]] = {"true": [], "foreign": [], "mixed": []}
    hits, kinds = [], {case.job: case.kind for case in cases}
    for case in cases:
        kind = next((kind for kind in seen if is_made_as(case, kind)), "")
        if not kind:
            continue
        thing = thing_of(case)
        models = fit_without(known, thing, kinds[case.job])
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


def _confidences(case: Case, models: dict[str, CueModel]) -> list[float]:
    values = []
    for cues in case.mask_cues:
        value = models["mask"].estimate(cues) if cues else 0.0
        is_unlike = "knn_distance" in cues and models["image"].estimate(cues) < SETTINGS.absent_level
        cap = LOW * (UNLIKE_CAP + (1.0 - UNLIKE_CAP) * value)
        values.append(min(value, cap) if is_unlike else value)
    return values


def _report_groups(kind: str, cases: Sequence[Case]) -> None:
    scores = [
        (model.estimate(case.group_cues), not is_made_as(case, "mixed"))
        for case, model in leave_out(cases, cases, fit_groups)
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
        (model.estimate(cues), not is_foreign)
        for case, model in leave_out(cases, cases, fit_images)
        for cues, is_foreign in zip(case.mask_cues, case.is_foreign, strict=True)
        if "knn_distance" in cues
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
