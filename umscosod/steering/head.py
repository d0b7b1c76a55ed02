"""A head for one group, fitted to what a person shows.

Two classifiers of patches, whose logits are averaged at equal size: logistic regression under a ridge, and where masks
or boxes are shown a vote of their patches, weighted by exp(cosine / temperature). Two fits of the first see different
things:

- *mixture*: the examples, and beside them, with a quarter of their weight, the maps that were there as soft labels of
  all other patches;
- *examples*: they and nothing else.

Either is blended with the maps that were there, of which the head takes n / (n + 3) for n masks; the second also
replaces them. With three masks or more, the maps that were there and these three are judged on each mask by a fit to
the others, and the best is taken; with fewer the mixture is.

Suffixes: ``N`` images of the group, ``P`` patches, ``M`` patches of a fit, ``F`` width of a patch description.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from umscosod.data.blend import blend_maps, logit, sigmoid
from umscosod.data.resize import resize_centred
from umscosod.features.vectors import describe_patches
from umscosod.pseudo.cleaning import ProbeSample
from umscosod.steering.examples import Example, to_patches
from umscosod.types import BoolArray, FloatArray, GroupFeatures

RIDGE = 0.03  # on the squared weights, for patches of unit variance
OTHERS = 0.25  # weight of all patches that no example speaks of, beside 1 for all examples
TOUCH = 0.1  # weight of an image's points, or of what is not the object, beside 1 for a mask
BEFORE = 3.0  # masks that the maps that were there count as in the blend; points of an image count as half of one
MARGIN = 0.1  # mean IoU by which another must beat the mixture: a few masks say little
TEMPERATURE = 0.05  # of the cosines by which patches of the masks vote
_VOTERS = 1000  # most patches that vote
_STEPS = 60  # of L-BFGS
_LEAST = 3  # masks from which candidates are judged: with two, each would be by a fit to one mask

UNCHANGED, MIXTURE, EXAMPLES, ALONE = "unchanged", "mixture", "examples", "examples alone"
"""What a group's steered maps were made by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SteeredMaps:
    """Maps of a group after steering.

    Attributes
    ----------
    maps_NHW : ndarray, float32, (N, H, W), in [0, 1]
    choice : str
        `UNCHANGED`, `MIXTURE`, `EXAMPLES` or `ALONE`.
    """

    maps_NHW: FloatArray
    choice: str


def steer_maps(
    features: GroupFeatures,
    base_NHW: FloatArray,
    examples: Mapping[str, Example],
    foreign: Sequence[ProbeSample] = (),
) -> SteeredMaps:
    """Correct the maps of a group by what a person shows.

    Parameters
    ----------
    features : GroupFeatures
    base_NHW : ndarray, float32, (N, H, W), in [0, 1]
        The maps that were there.
    examples : mapping of str to Example
        By image id; those of other images are left alone.
    foreign : sequence of ProbeSample
        Examples of other groups, see `sample_examples`.

    Returns
    -------
    SteeredMaps
        The maps that were there, where nothing is shown.
    """
    head = _Head.of(features, base_NHW)
    own = head.sample(examples)
    shown = [*own.values(), *foreign]
    if not shown:
        return SteeredMaps(maps_NHW=base_NHW, choice=UNCHANGED)
    masks = [index for index in own if examples[head.ids[index]].mask_HW is not None]
    choice = MIXTURE
    if masks and len(masks) + len(foreign) >= _LEAST:
        choice = _choose(head, own, foreign, masks)
    if choice == UNCHANGED:
        return SteeredMaps(maps_NHW=base_NHW, choice=UNCHANGED)
    share = 1.0 if choice == ALONE else _share(len(masks) + len(foreign), len(shown))
    head_NP = head.classify(shown, masks if choice == MIXTURE else None)
    head_NHW = np.stack([resize_centred(map_P.reshape(head.grid_hw), base_NHW.shape[1:]) for map_P in head_NP])
    return SteeredMaps(maps_NHW=blend_maps(base_NHW, head_NHW, share), choice=choice)


def sample_examples(
    features: GroupFeatures, base_NHW: FloatArray, examples: Mapping[str, Example]
) -> list[ProbeSample]:
    """Patches that a group's examples speak of, to serve another group.

    Parameters
    ----------
    features, base_NHW, examples
        As for `steer_maps`.
    """
    return list(_Head.of(features, base_NHW).sample(examples).values())


def _choose(head: _Head, own: Mapping[int, ProbeSample], foreign: Sequence[ProbeSample], masks: Sequence[int]) -> str:
    """Judge each candidate on each mask by a fit to the other examples: mean IoU on the grid, the mixture's raised."""
    share = _share(len(masks) + len(foreign), len(own) + len(foreign))
    gains = dict.fromkeys((MIXTURE, UNCHANGED, EXAMPLES, ALONE), 0.0)
    gains[MIXTURE] = MARGIN
    for index in masks:
        others = [*(sample for other, sample in own.items() if other != index), *foreign]
        examples_NP = head.classify(others, None)
        mixture_NP = head.classify(others, [other for other in masks if other != index])
        maps = {
            MIXTURE: blend_maps(head.base_NP, mixture_NP, share),
            UNCHANGED: head.base_NP,
            EXAMPLES: blend_maps(head.base_NP, examples_NP, share),
            ALONE: blend_maps(head.base_NP, examples_NP, 1.0),
        }
        for choice, maps_NP in maps.items():
            gains[choice] += mask_iou(maps_NP[index] >= 0.5, own[index].targets_M >= 0.5) / len(masks)
    return max(gains, key=gains.__getitem__)


def _share(masks: int, shown: int) -> float:
    """Share of the head in the blend: n / (n + `BEFORE`) for n examples."""
    count = masks + 0.5 * (shown - masks)
    return count / (count + BEFORE)


def mask_iou(first_HW: BoolArray, second_HW: BoolArray) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = np.count_nonzero(first_HW | second_HW)
    return np.count_nonzero(first_HW & second_HW) / union if union else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Head:
    """What all fits of a group share.

    Attributes
    ----------
    ids : tuple of str
    base_NHW : ndarray, float32, (N, H, W)
    base_NP : ndarray, float32, (N, P)
        The same on the token grid.
    inputs_NPF : ndarray, float32, (N, P, F)
        Patches around the group's mean, of unit variance on average over F.
    grid_hw : (int, int)
    """

    ids: tuple[str, ...]
    base_NHW: FloatArray
    base_NP: FloatArray
    inputs_NPF: FloatArray
    grid_hw: tuple[int, int]

    @classmethod
    def of(cls, features: GroupFeatures, base_NHW: FloatArray) -> _Head:
        """Describe the patches of a group."""
        grid_hw = features.first.grid_hw
        patches_NPF = np.concatenate(describe_patches(features, "none"), axis=2)
        scale = float(patches_NPF.std((0, 1), dtype=np.float64).mean()) or 1.0
        patches_NPF -= patches_NPF.mean((0, 1), dtype=np.float64).astype(np.float32)
        patches_NPF /= np.float32(scale)
        return cls(
            ids=tuple(image.id for image in features.group.images),
            base_NHW=base_NHW,
            base_NP=np.stack([resize_centred(map_HW, grid_hw).ravel() for map_HW in base_NHW]).astype(np.float32),
            inputs_NPF=patches_NPF,
            grid_hw=grid_hw,
        )

    def sample(self, examples: Mapping[str, Example]) -> dict[int, ProbeSample]:
        """Patches that each example speaks of, by the image's place; a mask's weights sum to 1, others to `TOUCH`."""
        samples = {}
        for index, image_id in enumerate(self.ids):
            if image_id not in examples:
                continue
            example = examples[image_id]
            said = to_patches(example, self.grid_hw, self.base_NP[index])
            is_said_P = said.weights_P > 0.0
            if is_said_P.any():
                weight = 1.0 if example.mask_HW is not None or example.boxes else TOUCH
                weights_M = said.weights_P[is_said_P]
                samples[index] = ProbeSample(
                    patches_MF=self.inputs_NPF[index, is_said_P],
                    targets_M=said.targets_P[is_said_P],
                    weights_M=weight * weights_M / weights_M.sum(),
                )
        return samples

    def classify(self, shown: Sequence[ProbeSample], masks: Collection[int] | None) -> FloatArray:
        """Maps of a fit to some examples, float32, (N, P), in [0, 1].

        With `masks`, the places of the images whose masks are shown, the other images count too: the mixture.
        """
        samples = [replace(one, weights_M=one.weights_M / len(shown)) for one in shown]
        if masks is not None:
            samples.append(self._rest(masks))
        solution_G = _fit(samples)
        logits_NP = self.inputs_NPF @ solution_G[:-1].astype(np.float32) + np.float32(solution_G[-1])
        whole = [one for one in shown if len(one.targets_M) == self.base_NP.shape[1]]
        if whole:
            nearest_NP = self._vote(whole)
            logits_NP = logits_NP / _size(logits_NP) + nearest_NP / _size(nearest_NP)
        return sigmoid(logits_NP).astype(np.float32)

    def _vote(self, masks: Sequence[ProbeSample]) -> FloatArray:
        """Logits of the shares that the patches of the masks most like each patch have; float32, (N, P)."""
        patches_MF = np.concatenate([one.patches_MF for one in masks])
        targets_M = np.concatenate([one.targets_M for one in masks])
        step = -(-len(targets_M) // _VOTERS)
        voters_MF, targets_M = _unit(patches_MF[::step]), targets_M[::step]
        votes = []
        for patches_PF in self.inputs_NPF:
            cosine_PM = _unit(patches_PF) @ voters_MF.T
            weights_PM = np.exp((cosine_PM - cosine_PM.max(1, keepdims=True)) / TEMPERATURE)
            votes.append(weights_PM @ targets_M / weights_PM.sum(1))
        return logit(np.stack(votes)).astype(np.float32)

    def _rest(self, whole: Collection[int]) -> ProbeSample:
        """All patches of the images without a mask, with the maps that were there for targets."""
        rest = [index for index in range(len(self.ids)) if index not in whole]
        targets_M = self.base_NP[rest].ravel()
        weights_M = np.full(len(targets_M), OTHERS / max(1, self.base_NP.size), np.float32)
        return ProbeSample(
            patches_MF=self.inputs_NPF[rest].reshape(len(targets_M), -1), targets_M=targets_M, weights_M=weights_M
        )


def _unit(patches_MF: FloatArray) -> FloatArray:
    length_M1 = np.linalg.norm(patches_MF, axis=1, keepdims=True)
    return np.asarray(patches_MF / np.where(length_M1 > 0.0, length_M1, 1.0))


def _size(logits_NP: FloatArray) -> float:
    """Root mean square; 1 where all are 0."""
    return float(np.sqrt((logits_NP.astype(np.float64) ** 2).mean())) or 1.0


def _fit(samples: Sequence[ProbeSample]) -> FloatArray:
    """Weights and, last, the bias that minimise cross entropy plus the ridge; the bias carries none; float64, (G,)."""
    patches_MF = np.concatenate([one.patches_MF for one in samples])
    targets_M = np.concatenate([one.targets_M for one in samples]).astype(np.float64)
    weights_M = np.concatenate([one.weights_M for one in samples]).astype(np.float64)
    weights_M /= weights_M.sum()

    def loss_and_slope(solution_G: FloatArray) -> tuple[float, FloatArray]:
        logits_M = (patches_MF @ solution_G[:-1].astype(np.float32)).astype(np.float64) + solution_G[-1]
        weights_F = solution_G[:-1]
        entropy = float(weights_M @ (np.logaddexp(0.0, logits_M) - targets_M * logits_M))
        error_M = weights_M * (sigmoid(logits_M) - targets_M)
        slope_F = error_M.astype(np.float32) @ patches_MF + RIDGE * weights_F
        return entropy + 0.5 * RIDGE * float(weights_F @ weights_F), np.append(slope_F, error_M.sum())

    found = minimize(
        loss_and_slope, np.zeros(patches_MF.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}
    )
    return np.asarray(found.x)
