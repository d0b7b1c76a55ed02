"""Reads masks that other programs made, each by the rule of its folder (see `umscosod.data.mask_rules`)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umscosod.data.mask_rules import HALF, MaskRule, fits, rule_of, show_values
from umscosod.data.mask_values import BYTE, WORD, Look, RawMask, open_mask
from umscosod.errors import DataError, count_of
from umscosod.types import BoolArray, ByteArray

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadMask:
    """A mask as its rule reads it.

    Attributes
    ----------
    grey_HW : ndarray, uint8, (H, W)
        0 and 255, or the soft levels of a grey map; may be read-only.
    ignored_HW : ndarray, bool, (H, W), or None
        Pixels that count neither as object nor as background.
    """

    grey_HW: ByteArray
    ignored_HW: BoolArray | None = None

    @property
    def foreground(self) -> BoolArray:
        """The mask: bool, (H, W)."""
        mask_HW: BoolArray = self.grey_HW >= HALF
        return mask_HW


def apply_rule(raw: RawMask, rule: MaskRule) -> ReadMask:
    """Read a decoded mask by a rule (not by an *unclear* one)."""
    if rule.kind == "values":
        first = rule.foreground[0]
        is_one = len(rule.foreground) == 1
        mask_HW = raw.values_HW == first if is_one else np.isin(raw.values_HW, rule.foreground)
        grey_HW = mask_HW.astype(np.uint8) * np.uint8(BYTE)
        is_ignored_HW = None if rule.ignored is None else raw.values_HW == rule.ignored
        return ReadMask(
            grey_HW=grey_HW, ignored_HW=is_ignored_HW if is_ignored_HW is not None and is_ignored_HW.any() else None
        )
    if raw.picture is not None:
        if rule.kind == "brightest":
            top_HW = np.asarray(raw.picture).max(axis=2)
            return ReadMask(grey_HW=(top_HW >= rule.white / 2).astype(np.uint8) * np.uint8(BYTE))
        return ReadMask(grey_HW=np.asarray(raw.picture.convert("L")))
    if not raw.look.is_wide:
        return ReadMask(grey_HW=raw.values_HW)
    values_HW = np.clip(np.nan_to_num(raw.values_HW.astype(np.float64)), 0, rule.white)
    if rule.white != BYTE:
        values_HW = np.floor(values_HW * (BYTE / rule.white) + 0.5)
    return ReadMask(grey_HW=values_HW.astype(np.uint8))


class MaskReader:
    """Reads masks one after the other, and says at the end what was done to them.

    Parameters
    ----------
    rule : MaskRule, optional
        Rule of the folder, from `umscosod.data.mask_rules.decide_rule`, after `MaskRule.check_clear`. Without one, each
        file is a folder of its own.
    is_truth : bool
        The caller leaves ignored pixels out and takes a mask value. Else ignored pixels are background, and a note
        says so.

    Attributes
    ----------
    n_masks, n_filled, n_ignored : int
        Masks read, those with foreground, and ignored pixels of all.
    """

    def __init__(self, rule: MaskRule | None = None, *, is_truth: bool = False) -> None:
        self.rule = rule
        self._is_truth = is_truth
        self.n_masks = self.n_filled = self.n_ignored = 0
        self._first_values = ""
        self._other: list[str] = []
        self._empty: list[str] = []
        self._full: list[str] = []
        self._with_ignored: list[str] = []
        self._rules: dict[str, None] = {}

    def read(self, path: Path) -> ReadMask:
        """Read one file.

        Raises
        ------
        DataError
            The file is missing, empty, not a regular file, or no image; or it holds several ids, and does not fit a
            rule that says which are foreground.
        """
        return self.apply(open_mask(path), path)

    def apply(self, raw: RawMask, path: Path | str) -> ReadMask:
        """Read one decoded mask; the path is for messages."""
        look = raw.look
        rule = self._choose(look, path)
        read = apply_rule(raw, rule)
        self.n_masks += 1
        if rule.kind == "half" and raw.picture is None and not look.is_wide:
            has_some, is_full = look.top >= HALF, look.low >= HALF
        else:
            has_some = bool(read.foreground.any())
            known_HW = read.foreground if read.ignored_HW is None else read.foreground | read.ignored_HW
            is_full = has_some and bool(known_HW.all())
        self.n_filled += has_some
        odd = " and some below 0 or NaN" if look.has_odd else ""
        told = f"{path}: {show_values(look.values, look.form)}{odd}" if is_full or not has_some else ""
        if not has_some and not look.is_blank:
            self._empty.append(told)
            self._first_values = self._first_values or told
        elif is_full and look.values[:1] not in ((1,), (BYTE,), (WORD,)):
            self._full.append(told)
        if read.ignored_HW is not None:
            self.n_ignored += int(np.count_nonzero(read.ignored_HW))
            self._with_ignored.append(str(path))
        return read

    def _choose(self, look: Look, path: Path | str) -> MaskRule:
        rule = self.rule
        if rule is None or not fits(rule, look):
            own = rule_of([look])
            if rule is None or own.kind != "unclear":
                own.check_clear(str(path), can_ask=self._is_truth)
                if rule is not None:
                    self._other.append(f"{path}: {own.sentence}")
                rule = own
            elif rule.kind == "values":
                own.check_clear(str(path), can_ask=self._is_truth)
        if not rule.is_plain:
            self._rules.setdefault(rule.sentence)
        return rule

    def check_any(self, where: str) -> None:
        """Refuse a folder in which all masks came out empty.

        Raises
        ------
        DataError
        """
        if self.n_masks and not self.n_filled:
            found = self._first_values or "all values are 0"
            by = "" if self.rule is None or self.rule.is_plain else f" by the rule '{self.rule.sentence}'"
            raise DataError(
                f"{where}: {count_of(self.n_masks, 'mask')}, and every one is empty{by} ({found}); check the folder, "
                "or name the foreground by --mask-value (in Python mask_value)"
            )

    def notes(self) -> list[str]:
        """Return one line for each kind of mask that may not be what the user meant."""
        kinds = [
            (self._other, "read by own values, unlike the others of the folder"),
            (self._empty, "counted as empty though not all 0"),
            (self._full, "counted as full, without background"),
        ]
        if not self._is_truth:
            text = "with 255 beside the ids, by custom 'not known': background here"
            kinds.append((self._with_ignored, text))
        return [f"{count_of(len(named), 'mask')} {text} ({_name_some(named)})" for named, text in kinds if named]

    def warn(self) -> None:
        """Log the rules that are not as usual, and the notes as warnings."""
        for sentence in self._rules:
            logger.info("masks: %s", sentence)
        for note in self.notes():
            logger.warning("%s", note)


def _name_some(told: list[str]) -> str:
    return "; ".join(told[:_SHOWN] + ["..."] * (len(told) > _SHOWN))
