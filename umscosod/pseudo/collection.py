"""Pseudo-labels of a whole collection, cleaned: by each group's prototype, then by one probe over all groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umscosod.config import PipelineConfig
from umscosod.pseudo.cleaning import clean_labels
from umscosod.pseudo.probe import LinearProbe, ProbeSample, apply_probe, draw_sample, fit_probe
from umscosod.types import GroupFeatures, PseudoLabel


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanedLabels:
    """Pseudo-labels of a collection after cleaning.

    Attributes
    ----------
    labels : dict of str to PseudoLabel
        By image id.
    probe : LinearProbe or None
        Whose maps they are; None where ``pseudo.probe`` is none or there was nothing to fit.
    """

    labels: dict[str, PseudoLabel]
    probe: LinearProbe | None = None


def clean_collection(
    collection: Sequence[GroupFeatures], labels: Mapping[str, PseudoLabel], config: PipelineConfig
) -> CleanedLabels:
    """Clean the pseudo-labels of all groups, as ``pseudo.clean`` and ``pseudo.probe`` say.

    Parameters
    ----------
    collection : sequence of GroupFeatures
        Read twice, one group at a time, so a sequence that loads on access keeps one group in memory.
    labels : mapping of str to PseudoLabel
        By image id; images without one stay without.
    config : PipelineConfig
        Reads ``pseudo`` and ``seed``.

    Returns
    -------
    CleanedLabels
        See `umscosod.pseudo.cleaning.clean_labels` and `umscosod.pseudo.probe.apply_probe`.

    Notes
    -----
    ``probe_patches`` are shared out by labelled images, rounded, at least one to a group. One order of groups and
    images gives equal bits; another sums in another order and, in a group of which not all patches are drawn, draws
    others.
    """
    cleaned: dict[str, PseudoLabel] = {}
    samples: list[ProbeSample] = []
    share = config.pseudo.probe_patches / max(1, len(labels))  # of an image
    for features in collection:
        own = clean_labels(features, labels, config.pseudo)
        cleaned |= own
        if config.pseudo.probe == "linear" and own:
            count = max(1, round(share * len(own)))
            sample = draw_sample(features, own, count, config.seed)
            samples += [] if sample is None else [sample]
    probe = fit_probe(samples, config.pseudo.probe_ridge)
    if probe is None:
        return CleanedLabels(labels=cleaned)
    probed: dict[str, PseudoLabel] = {}
    for features in collection:
        probed |= apply_probe(features, cleaned, probe, config.pseudo)
    return CleanedLabels(labels=probed, probe=probe)
