"""Decides how the ground truths and predictions of an evaluation are read: each by one rule for its folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umscosod.data.foreign import MaskReader
from umscosod.data.mask_rules import MaskRule, MaskValue, decide_rule, look_at_file, show_values
from umscosod.data.mask_values import BYTE, Look

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Readers:
    """What reads the files of an evaluation.

    Attributes
    ----------
    truth : MaskReader
    prediction : MaskReader or None
        For masks that are not grey (0 and 1, a palette, one colour); None: soft maps or 0/255, read as they are.
    """

    truth: MaskReader
    prediction: MaskReader | None

    @property
    def sentence(self) -> str:
        """The rule of the ground truths; empty if they are grey as usual."""
        rule = self.truth.rule
        return "" if rule is None or rule.is_plain else rule.sentence

    def notes(self) -> list[str]:
        """Return what was done to files that may not be what the user meant, and the ignored pixels."""
        notes = [f"ground truths: {note}" for note in self.truth.notes()]
        if self.prediction is not None:
            notes += [f"predictions: {note}" for note in self.prediction.notes()]
        return notes

    def warn(self) -> None:
        """Log the notes as warnings."""
        for note in self.notes():
            logger.warning("%s", note)


def decide_truth_rule(
    truths: Sequence[Any],
    where: str,
    mask_value: MaskValue | None = None,
    look: Callable[[Any], Look] = look_at_file,
) -> MaskRule:
    """Decide how ground truths are read, and say it.

    Parameters
    ----------
    truths : sequence
        Files, or anything else that `look` can look at.
    where : str
        Folder or field of the ground truths, for messages.
    mask_value : int, str or sequence, optional
        Ids that are foreground.
    look : callable
        Returns the values of one ground truth; a DataError omits it.

    Raises
    ------
    DataError
        There are several ids and no `mask_value`, or no ground truth holds it.
    ConfigError
        The mask value is none.
    """
    rule = decide_rule(truths, mask_value, look=look)
    rule.check_clear(where, can_ask=True)
    if not rule.is_plain:
        logger.info("ground truths in %s: %s", where, rule.sentence)
    return rule


def open_readers(truth_rule: MaskRule, predictions: Sequence[Path]) -> Readers:
    """Open readers for ground truths of a rule and for predictions, whose rule is decided and said here."""
    return Readers(truth=MaskReader(truth_rule, is_truth=True), prediction=_prediction_reader(predictions))


def _prediction_reader(paths: Sequence[Path]) -> MaskReader | None:
    rule = decide_rule(paths)
    if rule.kind == "unclear":
        logger.warning(
            "predictions hold the values %s (%s is one); they are taken for grey levels of soft maps; if they are ids, "
            "save the object as 255 and all else as 0",
            show_values(rule.found, rule.form),
            paths[0],
        )
    if not _is_mask(rule):
        return None
    logger.warning("predictions are masks of %s; they are scored as 0 and 255 (%s is one)", rule.sentence, paths[0])
    return MaskReader(rule)


def _is_mask(rule: MaskRule) -> bool:
    """Whether predictions are masks that grey would darken: 0 and 1, 16 bits of 0 and 255, an index, one colour."""
    if rule.kind == "values":
        return rule.ignored is None and (rule.form != "number" or rule.foreground == (1,))
    return rule.kind == "half" and rule.is_wide and rule.white == BYTE and rule.form == "number"
