"""Weights of the backbones, for forms and operators; the work is that of `umscosod.features.hub`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from umscosod.errors import count_of
from umscosod.features import hub
from umscosod.integrations.fiftyone.runs.record import Progress, showing


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsReport:
    """The outcome of `get_weights`.

    Attributes
    ----------
    weights : tuple of umscosod.features.hub.StoredWeights
    notes : tuple of str
    """

    weights: tuple[hub.StoredWeights, ...]
    notes: tuple[str, ...]

    @property
    def is_success(self) -> bool:
        """Always: what fails raises."""
        return True

    @property
    def summary(self) -> str:
        """The names, and how many are new."""
        n_new = sum(each.is_new for each in self.weights)
        return f"{', '.join(each.name for each in self.weights)}: {count_of(n_new, 'file')} downloaded"


def get_weights(names: Iterable[str], *, progress: Progress = None) -> WeightsReport:
    """Download weights; see `umscosod.features.hub.get_weights`.

    Parameters
    ----------
    names : iterable of str
        Names of backbones, ``paper``, ``small``, ``hf-hub:OWNER/NAME`` or ``timm:NAME``.
    progress : callable, bool or None
        A callback, or whether to show a progress bar; None: FiftyOne's ``show_progress_bars`` decides.

    Raises
    ------
    ConfigError, WeightsError, DataError
        As the function named above.
    """
    with showing(progress) as report:
        stored = hub.get_weights(names, progress=report)
    return WeightsReport(weights=stored, notes=tuple(note for each in stored for note in each.notes))


def offered_weights(names: Iterable[str] = ()) -> tuple[hub.WeightsOffer, ...]:
    """What there is under names; without names, every backbone that has weights. No network, for names of backbones.

    Raises
    ------
    ConfigError
        A name is not known.
    WeightsError
        The file of records is damaged.
    """
    chosen = tuple(names)
    return hub.plan_weights(chosen) if chosen else hub.list_weights()
