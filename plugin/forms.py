"""From config dataclasses to form texts, so that each parameter is explained in one place only."""

from typing import Any, get_type_hints

from typing_extensions import Doc


def get_help(config_class: type, name: str) -> str:
    """Return what `config_class` says of its field `name`.

    Examples
    --------
    >>> from umscosod.config import TrainConfig
    >>> get_help(TrainConfig, "epochs")
    'Passes over all groups (paper: 100).'
    """
    hint = get_type_hints(config_class, include_extras=True)[name]
    notes: tuple[Any, ...] = getattr(hint, "__metadata__", ())
    return next((note.documentation for note in notes if isinstance(note, Doc)), "")
