"""Decides what is foreground in masks that other programs made: one rule for a folder, by the values of its files.

A rule is of one of four kinds: *half* (grey from half the range on: 0/255, soft maps), *values* (certain ids, palette
indices or colours), *brightest* (shades of one colour), *unclear* (several ids, and nobody has said which).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from umscosod.data.mask_values import BYTE, WORD, Form, Look, open_mask
from umscosod.errors import ConfigError, DataError

MaskValue = int | str | Sequence[int | str]
"""Ids that are foreground: 15, "1,2", "1-20", "#ff0000", or several of them."""
Kind = Literal["half", "values", "brightest", "unclear"]

HALF = 128
_LOOKED_AT = 16  # files, evenly spread, that are looked at first
_SMALL = 10  # a grey level up to this is an id where others are not small
_ROUNDED = 2  # levels that a shade may be off
_NEAR_WHITE = 0.9  # share of white that a compressed mask reaches, and ids do not
_FEW_BRIGHT = 12  # with more values, of which some are bright, a mask is soft
_STRAY = 8  # where 255 is so many times as frequent as 1, 1 is noise
_SHOWN = 5
_MOST_IDS = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRule:
    """What is foreground in the masks of a folder.

    Attributes
    ----------
    kind : {"half", "values", "brightest", "unclear"}
        See the module.
    form : {"number", "index", "colour"}
        What `foreground` and `ignored` mean.
    foreground : tuple of int
        For the kind *values*.
    ignored : int, optional
        Value of the pixels about which nothing is known.
    white : float
        Greatest grey level of files of more than 8 bits: 1, 255 or 65535. For *brightest*, that of a channel.
    is_wide : bool
        There are such files.
    found : tuple of float
        Distinct values of the files looked at, a few.
    is_asked : bool
        The user has named the values.
    sentence : str
        The rule in words.
    """

    kind: Kind
    form: Form = "number"
    foreground: tuple[int, ...] = ()
    ignored: int | None = None
    white: float = BYTE
    is_wide: bool = False
    found: tuple[float, ...] = ()
    is_asked: bool = False
    sentence: str = "0 and 255"

    @property
    def is_plain(self) -> bool:
        """Whether the masks are grey as ours are, so that nothing needs to be said."""
        return self.kind == "half" and self.white in (BYTE, WORD)

    def check_clear(self, where: str, *, can_ask: bool = False) -> None:
        """Refuse a rule that nobody has decided.

        Parameters
        ----------
        where : str
            Folder or file.
        can_ask : bool
            The caller takes a mask value, so that the message names its flag.

        Raises
        ------
        DataError
            With the values found, and what to do.
        """
        if self.kind != "unclear":
            return
        values = f"{_NOUNS[self.form]} {show_values(self.found, self.form)}"
        found = f"{where}: holds the {values}, so several could be the object"
        if not can_ask:
            raise DataError(f"{found}; save the object as 255 and all else as 0")
        example = [_show(value, self.form) for value in self.found if value > 0 and value != self.ignored][:2]
        quote = "'" if self.form == "colour" else ""
        raise DataError(
            f"{found}; name the foreground by --mask-value (in Python mask_value), such as --mask-value "
            f"{quote}{example[0]}{quote} or --mask-value {quote}{','.join(example)}{quote}"
        )


_NOUNS: dict[Form, str] = {"number": "values", "index": "palette indices", "colour": "colours"}


def _show(value: float, form: Form) -> str:
    return f"#{int(value):06x}" if form == "colour" else f"{value:g}"


def show_values(values: Sequence[float], form: Form = "number") -> str:
    """Name the first few of many values.

    >>> show_values((0, 1, 255)), show_values((0, 0xFF0000), "colour")
    ('0, 1, 255', '#000000, #ff0000')
    """
    shown = ", ".join(_show(value, form) for value in values[: 2 * _SHOWN])
    return f"{shown}, ..." if len(values) > 2 * _SHOWN else shown or "many colours"


def parse_mask_value(given: MaskValue | None) -> tuple[int, ...] | None:
    """Return the ids that are foreground; colours as 0xRRGGBB with the sign turned (so that no id equals one).

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> parse_mask_value("15"), parse_mask_value("1,4-6"), parse_mask_value([1, 2]), parse_mask_value("#0000ff")
    ((15,), (1, 4, 5, 6), (1, 2), (-255,))
    """
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else [given] if isinstance(given, int) else list(given)
    values: list[int] = []
    for part in parts:
        text = str(part).strip()
        first, dash, last = text.partition("-")
        if text.startswith("#") and len(text) == 7 and all(digit in "0123456789abcdefABCDEF" for digit in text[1:]):
            values.append(-int(text[1:], 16))
        elif text.isascii() and text.isdigit() and len(text) < 10:
            values.append(int(text))
        elif dash and all(one.isascii() and one.isdigit() and len(one) < 10 for one in (first, last)):
            values += range(int(first), min(int(last), int(first) + _MOST_IDS) + 1)
        else:
            values.append(0)
        if 0 in values:
            raise ConfigError(
                f"mask value {text!r}: give ids above 0 such as 15, 1,2 or 1-20, or a colour such as '#ff0000' (0 and "
                "black are background)"
            )
    if not values:
        raise ConfigError("the mask value is empty; give ids such as 15 or 1,2, or leave it out")
    return tuple(dict.fromkeys(values))


def look_at_file(path: Path) -> Look:
    """Return the values of a mask file; errors are those of `umscosod.data.mask_values.open_mask`."""
    return open_mask(path).look


def decide_rule(
    masks: Sequence[Any], mask_value: MaskValue | None = None, *, look: Callable[[Any], Look] = look_at_file
) -> MaskRule:
    """Decide how the masks of a folder are read, by a look at their values.

    Sixteen files, evenly spread, are looked at. If they are not grey as usual (0/255 or soft), all are.

    Parameters
    ----------
    masks : sequence of Path
        Files; or anything else that `look` can look at.
    mask_value : int, str or sequence, optional
        See `MaskValue`.
    look : callable
        Returns the values of one mask; a mask for which it raises DataError is omitted here.

    Returns
    -------
    MaskRule
        Of the kind *unclear* if there are several ids and no `mask_value` (see `MaskRule.check_clear`).

    Raises
    ------
    ConfigError
        The mask value is none.
    DataError
        No mask holds one of the values.
    """
    wanted = parse_mask_value(mask_value)
    step = max(1, len(masks) // _LOOKED_AT) if wanted is None else 1
    looks = _look_at(masks[::step], look)
    rule = rule_of(looks, wanted)
    if step == 1 or (rule.is_plain and not rule.is_wide):
        return rule
    return rule_of(_look_at(masks, look))


def _look_at(masks: Sequence[Any], look: Callable[[Any], Look]) -> list[Look]:
    looks = []
    for mask in masks:
        try:
            looks.append(look(mask))
        except DataError:  # reported when it is read
            continue
    return looks


def rule_of(looks: Sequence[Look], wanted: tuple[int, ...] | None = None) -> MaskRule:
    """Decide the rule for masks with these values; see `decide_rule`."""
    looks = [look for look in looks if not look.is_blank]
    if not looks:
        return MaskRule(kind="half")
    forms = Counter(look.form for look in looks)
    form = max(_NOUNS, key=lambda one: forms[one])  # of equals the first
    if wanted is not None:
        return _asked_rule([look for look in looks if (look.form == "colour") == (form == "colour")], wanted)
    same = [look for look in looks if look.form == form]
    return _colour_rule(same) if form == "colour" else _number_rule(same)


def _union(looks: Sequence[Look]) -> tuple[float, ...]:
    return tuple(sorted({value for look in looks for value in look.values}))


def _white_of(looks: Sequence[Look]) -> float:
    """Greatest grey level of the wide files."""
    top = max((look.top for look in looks if look.is_wide), default=BYTE)
    is_whole = all(look.is_whole for look in looks if look.is_wide)
    return BYTE if (is_whole or top > 1) and top <= BYTE else 1.0 if top <= 1 else WORD


def _asked_rule(looks: Sequence[Look], wanted: tuple[int, ...]) -> MaskRule:
    form: Form = "colour" if wanted[0] < 0 else "number"
    if len({value < 0 for value in wanted}) > 1:
        raise ConfigError("the mask value names both ids and colours; give ids alone or colours alone")
    found = _union(looks)
    foreground = tuple(sorted(abs(value) for value in wanted))
    is_colour = looks[0].form == "colour"
    if is_colour != (form == "colour"):
        have, give = ("colours", "such as '#ff0000'") if is_colour else ("numbers", "such as 1")
        raise ConfigError(f"the masks hold {have} ({show_values(found, looks[0].form)}); give a mask value {give}")
    if all(look.is_few for look in looks) and not set(found) & set(foreground):
        raise DataError(
            f"no mask holds the mask value {show_values(foreground, form)}; they hold {show_values(found, form)}"
        )
    ignored = None
    if not is_colour:
        top = BYTE if max(look.top for look in looks) <= BYTE else WORD
        ignored = top if top in found and top not in foreground else None
    return _values_rule(form, foreground, ignored, found, is_asked=True)


def _colour_rule(looks: Sequence[Look]) -> MaskRule:
    found = _union(looks)
    peak = max(look.peak for look in looks)
    shades = MaskRule(
        kind="brightest", form="colour", white=peak, sentence=f"shades of a colour, foreground from {peak / 2:g} on"
    )
    if not all(look.is_few for look in looks):
        if max(look.top for look in looks) < HALF:
            return shades
        return MaskRule(kind="half", form="colour", sentence="colours, foreground from half the brightness on")
    colours = [int(value) for value in found if value]
    if len(colours) > 1 and _are_shades(looks, colours):
        return shades
    if len(colours) > 1:
        return MaskRule(kind="unclear", form="colour", found=found, sentence="several colours")
    return _values_rule("colour", tuple(colours), None, found)


def _are_shades(looks: Sequence[Look], colours: Sequence[int]) -> bool:
    """Whether colours are soft edges of the brightest one: in proportion to it, and fewer."""
    counts: Counter[int] = Counter()
    for look in looks:
        counts.update({int(value): count for value, count in zip(look.values, look.counts, strict=True)})
    channels = {colour: (colour >> 16, colour >> 8 & BYTE, colour & BYTE) for colour in colours}
    main = max(colours, key=lambda colour: sum(channels[colour]))
    peak = max(channels[main])
    return 2 * counts[main] > sum(counts[colour] for colour in colours) and all(
        abs(one - whole * max(shade) / peak) <= _ROUNDED
        for shade in channels.values()
        for one, whole in zip(shade, channels[main], strict=True)
    )


def _number_rule(looks: Sequence[Look]) -> MaskRule:
    form, white, found = looks[0].form, _white_of(looks), _union(looks)
    soft = MaskRule(
        kind="half",
        form=form,
        white=white,
        is_wide=any(look.is_wide for look in looks),
        found=found,
        sentence="grey levels, foreground from half the range on",
    )
    whites = [white if look.is_wide else BYTE for look in looks]
    ids = {value for look, top in zip(looks, whites, strict=True) for value in look.values if value not in (0, top)}
    with_white = [look for look, top in zip(looks, whites, strict=True) if top in look.values]
    if not ids:
        if form == "index":
            return _values_rule(form, (BYTE,), None, found)
        depth = " in more than 8 bits" if soft.is_wide and white == BYTE else ""
        return replace(soft, sentence=f"0 and {white:g}{depth}")
    if form == "number" and not _are_ids(looks, ids):
        return soft
    both = [look for look in with_white if set(look.values) & ids]
    if with_white and not both:  # two kinds of files: the more frequent one decides
        rest = [look for look in looks if look not in with_white]
        return _number_rule(with_white if len(with_white) >= len(rest) else rest)
    if both and form == "number" and not _outnumber(both, ids, white):
        return soft
    foreground, ignored = tuple(sorted(int(value) for value in ids)), int(white) if both else None
    if len(ids) > 1:
        return MaskRule(kind="unclear", form=form, ignored=ignored, found=found, sentence="several ids")
    return _values_rule(form, foreground, ignored, found)


def _are_ids(looks: Sequence[Look], ids: set[float]) -> bool:
    """Whether values between 0 and white are ids, not grey levels: few whole ones, all dark or one of them small."""
    if not all(look.is_few and look.is_whole for look in looks):
        return False
    if len(ids) == 1 and all(0 in look.values or len(look.values) == 1 for look in looks):
        (value,) = ids
        has_white = any(look.top > value for look in looks)
        return value < HALF or not has_white
    top = max(look.top for look in looks)
    if top > WORD or max(ids) < (HALF if top <= BYTE else (WORD + 1) / 2):
        return True
    is_far_from_white = top < _NEAR_WHITE * (BYTE if top <= BYTE else WORD)
    return min(ids) <= _SMALL and is_far_from_white and all(len(look.values) <= _FEW_BRIGHT for look in looks)


def _outnumber(looks: Sequence[Look], ids: set[float], white: float) -> bool:
    """Whether ids beside white pixels are many enough to be objects with a border, not grey edges of white ones."""
    n_ids = sum(count for look in looks for value, count in zip(look.values, look.counts, strict=True) if value in ids)
    tops = (white if look.is_wide else BYTE for look in looks)
    n_white = sum(look.counts[look.values.index(top)] for look, top in zip(looks, tops, strict=True))
    has_background = any(0 in look.values for look in looks)
    return has_background and (n_white <= _STRAY * n_ids if ids == {1} else n_white < n_ids)


def _values_rule(
    form: Form, foreground: tuple[int, ...], ignored: int | None, found: tuple[float, ...], *, is_asked: bool = False
) -> MaskRule:
    text = f"{_NOUNS[form]} {show_values(found, form)}: {show_values(foreground, form)} is foreground"
    if ignored is not None:
        text += f", {ignored} is ignored"
    return MaskRule(
        kind="values", form=form, foreground=foreground, ignored=ignored, found=found, is_asked=is_asked, sentence=text
    )


def fits(rule: MaskRule, look: Look) -> bool:
    """Whether a file with these values can be read by the rule of its folder."""
    if look.is_blank:
        return True
    if rule.kind == "values":
        if (rule.form == "colour") != (look.form == "colour"):
            return False
        return rule.is_asked or (look.is_few and set(look.values) <= {0, rule.ignored, *rule.foreground})
    if look.form == "index":
        return False
    if look.form == "number" and not look.is_wide and (look.top == BYTE and set(look.values) <= {0, BYTE}):
        return True
    own = rule_of([look])
    if own.kind == "values":  # 0 and 200: both rules agree
        return look.form == "number" and own.ignored is None and min(own.foreground) >= HALF and not look.is_wide
    if look.is_wide and own.white != rule.white:
        return look.top <= rule.white and not set(look.values) <= {0, own.white}
    return own.kind in ("half", rule.kind) or rule.kind == "half"
