"""Errors for users, and the words of their messages."""

from __future__ import annotations

import re
import reprlib

_BREAK = re.compile(r"\s*[\r\n]\s*")


class UmscosodError(Exception):
    """Base of every error raised on purpose by this package."""


class ConfigError(UmscosodError, ValueError):
    """A setting is unknown, of the wrong type, or out of its bounds."""


class DataError(UmscosodError, ValueError):
    """An image, mask, list or folder cannot be used as it is."""


class OtherResultsError(DataError):
    """A folder holds results of other settings, images, labels or weights than those asked for."""


class WeightsError(UmscosodError):
    """Backbone weights are missing or do not fit the architecture asked for."""


class CheckpointError(UmscosodError):
    """A checkpoint is missing, damaged, or was made with other settings."""


class CacheError(UmscosodError):
    """The feature cache cannot be read or written."""


class ExportError(UmscosodError):
    """A model cannot be written in another format, or does not give there what it gives here."""


class EngineError(UmscosodError):
    """The machines that were to do the work cannot be had, or fail at it time and again."""


class MissingDependencyError(UmscosodError, ImportError):
    """An optional package or program is not installed."""


class Cancelled(UmscosodError):  # noqa: N818 - an outcome the caller asked for, not a fault
    """The caller's cancel check returned true between two units of work."""


def one_line(text: str) -> str:
    """Text with its line breaks and what is around them as one space; other spaces may be part of a name."""
    return _BREAK.sub(" ", text).strip()


def reason_of(error: BaseException) -> str:
    """What went wrong, for a message that names the file itself: the system's words alone, or one line.

    Examples
    --------
    >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.jpg")), reason_of(MemoryError())
    ('No such file or directory', 'MemoryError')
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(str(error)) or type(error).__name__


def shorten(value: object, limit: int = 80, *, quoted: bool = True) -> str:
    """A value as a message shows it: one line of at most `limit` characters, whatever a file held.

    Parameters
    ----------
    value : object
    limit : int
    quoted : bool
        As `repr` writes it; else as text.

    Examples
    --------
    >>> shorten({"a": [1, 2]}), shorten("x" * 100, 10), shorten(10**5000)
    ("{'a': [1, 2]}", "'xx...xxx'", 'a whole number of more than 80 digits')
    """
    made = _Repr()
    made.maxlevel, made.maxlist, made.maxtuple, made.maxdict = 4, 8, 8, 8
    made.maxstring = made.maxother = made.maxlong = limit
    if quoted:
        text = " ".join(made.repr(value).split())
    else:
        text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write more than 4,300 digits
        return repr(x) if abs(x) < 10**self.maxlong else f"a whole number of more than {self.maxlong} digits"


def count_of(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    Examples
    --------
    >>> count_of(1, "image"), count_of(2, "image"), count_of(2, "mask of 'cosal'", "masks of 'cosal'")
    ('1 image', '2 images', "2 masks of 'cosal'")
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
