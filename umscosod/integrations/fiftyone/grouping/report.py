"""What grouping a data set came to, in figures and in one sentence."""

from __future__ import annotations

import dataclasses

from umscosod.words import count_of

_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GroupingReport:
    """What groups there are.

    Attributes
    ----------
    field : str
        Of the group's name.
    sizes : dict of str to int
        Samples by name of group.
    small : tuple of str
        Groups of fewer images than `GroupingConfig.min_size`.
    mixed : tuple of str
        Groups no more alike than images drawn at random; empty where the pictures were not looked at.
    ungrouped : int
        Samples without a group.
    view_name : str
        Saved view with one tile a group; ``""`` where nothing was written.
    cohesion : dict of str to float
        By name of group, where the pictures were looked at.
    failures : dict of str to str
        Reason by sample id, of pictures that could not be read.
    notes : tuple of str
        What else the user should know.
    """

    field: str
    sizes: dict[str, int]
    small: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    ungrouped: int = 0
    view_name: str = ""
    cohesion: dict[str, float] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        """Whether there is a group at all."""
        return bool(self.sizes)

    @property
    def summary(self) -> str:
        """One sentence for people."""
        what = "written to" if self.view_name else "proposed for"
        parts = [
            f"{count_of(len(self.sizes), 'group')} of {count_of(sum(self.sizes.values()), 'sample')} "
            f"{what} the field {self.field!r}"
        ]
        for names, word in ((self.small, "small"), (self.mixed, "mixed")):
            if names:
                more = ", ..." if len(names) > _SHOWN else ""
                parts.append(f"{len(names)} {word} ({', '.join(names[:_SHOWN])}{more})")
        if self.ungrouped:
            parts.append(f"{count_of(self.ungrouped, 'sample')} without a group")
        if self.failures:
            parts.append(f"{count_of(len(self.failures), 'picture')} cannot be read")
        if self.view_name:
            parts.append(f"saved view {self.view_name!r}")
        return "; ".join([*parts, *self.notes])
