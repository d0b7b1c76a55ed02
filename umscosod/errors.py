"""Errors that users meet. Each message says what, which value, where, and what to do."""

from __future__ import annotations


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


class MissingDependencyError(UmscosodError, ImportError):
    """An optional package or program is not installed."""


class Cancelled(UmscosodError):  # noqa: N818 - an outcome the caller asked for, not a fault
    """The caller's cancel check returned true between two units of work."""
