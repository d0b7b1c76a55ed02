"""Models of confidence fitted to cases, all of them or all but one group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize

from benchmarks.confidence.cases import Case, home_of, is_made_as, thing_of
from umscosod.confidence.judge import CUE_CLIP, CueModel, read_model

RIDGE = {"mask": 0.02, "group": 0.02, "image": 0.02}
CUES = {
    "mask": (
        *(
            "border_contact",
            "inner_outline",
            "compactness",
            "largest_component_share",
            "size",
            "centrality",
            "colour_contrast",
        ),
        *("separation", "agreement", "max_group_cosine"),
    ),
    "group": ("closeness", "closer_than_background", "common_contrast", "match"),
    "image": ("knn_distance", "likeness", "max_group_cosine"),
}


def fit_model(
    rows: Sequence[dict[str, float]], target: Sequence[float], what: str, weight: Any = None
) -> dict[str, Any]:
    """Logistic regression on standardised cues, clipped at CUE_CLIP, weights not negative, with a ridge."""
    names = CUES[what]
    values = np.array([[row[name] for name in names] for row in rows])
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    z, wanted = np.clip((values - mean) / scale, -CUE_CLIP, CUE_CLIP), np.asarray(target, float)
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


def fit_all(cases: Sequence[Case]) -> dict[str, Any]:
    """All the models of ``calibration.json``."""
    models = {}
    for kind in ("plain", "whitened"):
        of_kind = [case for case in cases if case.kind == kind]
        models[f"mask-{kind}"] = fit_masks([case for case in of_kind if is_made_as(case, "true")])
        models[f"group-{kind}"] = fit_groups([case for case in of_kind if is_made_as(case, "alone", "mixed")])
        models[f"image-{kind}"] = fit_images([case for case in of_kind if is_made_as(case, "foreign")])
    return models


def fit_masks(cases: Sequence[Case]) -> dict[str, Any]:
    """Model of the IoU."""
    rows = [(cues, iou) for case in cases for cues, iou in zip(case.mask_cues, case.iou, strict=True) if cues]
    return fit_model([cues for cues, _ in rows], [iou for _, iou in rows], "mask")


def fit_groups(cases: Sequence[Case]) -> dict[str, Any]:
    """Model of true against mixed groups, either as likely as the other."""
    is_true = np.array([not is_made_as(case, "mixed") for case in cases])
    weight = np.where(is_true, 1 / is_true.sum(), 1 / (~is_true).sum())
    return fit_model([case.group_cues for case in cases], is_true, "group", weight)


def fit_images(cases: Sequence[Case]) -> dict[str, Any]:
    """Model of members against foreign images, either as likely as the other."""
    rows = [
        (cues, is_foreign)
        for case in cases
        for cues, is_foreign in zip(case.mask_cues, case.is_foreign, strict=True)
        if "knn_distance" in cues
    ]
    member = np.array([not is_foreign for _, is_foreign in rows])
    weight = np.where(member, 1 / member.sum(), 1 / (~member).sum())
    return fit_model([cues for cues, _ in rows], member, "image", weight)


def leave_out(
    train: Sequence[Case], test: Sequence[Case], fit: Callable[[Sequence[Case]], dict[str, Any]]
) -> Iterator[tuple[Case, CueModel]]:
    """Yield each tested case with a model that has not seen its group."""
    for case in test:
        yield case, read_model(fit([other for other in train if thing_of(other) != thing_of(case)]))


def fit_without(known: Sequence[Case], thing: str, kind: str) -> dict[str, CueModel]:
    """Models that have not seen a group; those of all groups are made once for each name."""
    if (thing, kind) not in _FITTED:
        rest = [case for case in known if thing_of(case) != thing and f"{home_of(case)}{case.group}" != thing]
        of_kind = [case for case in rest if case.kind == kind]
        _FITTED[thing, kind] = {
            "mask": read_model(fit_masks([case for case in of_kind if is_made_as(case, "true")])),
            "image": read_model(fit_images([case for case in of_kind if is_made_as(case, "foreign")])),
        }
    return _FITTED[thing, kind]


_FITTED: dict[tuple[str, str], dict[str, CueModel]] = {}
