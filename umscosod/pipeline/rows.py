"""Report rows that need no stage: of finished jobs and of pseudo-labels, and what is said of whose maps were kept."""

from __future__ import annotations

from collections.abc import Sequence

from umscosod.pipeline.choosing import MEAN, NETWORK, PROBE, PSEUDO
from umscosod.pipeline.prepare import Prepared
from umscosod.pipeline.stages import Labels
from umscosod.types import ImageGroup, Labelled, Status
from umscosod.words import count_of

_CHOSEN = {
    NETWORK: "the network's masks agree better across the group than {other}, and are kept",
    PSEUDO: "the pseudo-labels agree better across the group than the network's masks, and are kept",
    PROBE: "the probe's masks agree better across the group than the network's, and are kept",
    MEAN: "network and {short} agree about equally well across the group, and a mean of their maps is kept",
}
_OTHER = {
    PSEUDO: {"other": "its pseudo-labels", "short": "pseudo-labels"},
    PROBE: {"other": "the probe's", "short": "probe"},
}
_SHOWN = 8


def choice_notes(rows: Sequence[Labelled], other: str) -> list[str]:
    """Say whose maps the groups kept, one line per maker; `other` is who competed with the network."""
    kept = {row.group: row.source for row in reversed(rows) if row.source in _CHOSEN}
    lines = []
    for source, words in _CHOSEN.items():
        names = [name for name in reversed(kept) if kept[name] == source]
        if names:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            lines.append(f"{words.format(**_OTHER[other])}: {len(names)} of {count_of(len(kept), 'group')} ({shown})")
    return lines


def mixed_notes(rows: Sequence[Labelled]) -> list[str]:
    """Name the groups in which no common object is seen; one line, or none."""
    names = list(dict.fromkeys(row.group for row in rows if row.is_mixed))
    if not names:
        return []
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    count = len({row.group for row in rows})
    return [
        f"no common object seen, so that no mask there can be relied on: "
        f"{len(names)} of {count_of(count, 'group')} ({shown})"
    ]


def finished_rows(prepared: Prepared) -> list[Labelled] | None:
    """Rows of a job whose groups are all finished; None if anything is left to do."""
    rows: list[Labelled] = []
    for group in prepared.features.groups:
        done = prepared.job.load_rows(group)
        if done is None:
            return None
        rows += done
    return rows


def pseudo_rows(groups: tuple[ImageGroup, ...], labels: Labels) -> list[Labelled]:
    """Report rows of a job that stops at pseudo-labels."""
    rows = []
    for group in groups:
        for image in group.images:
            label = labels.get(image.id)
            is_found = label is not None and bool(label.mask_hw.any())
            rows.append(
                Labelled(
                    image_id=image.id,
                    group=group.name,
                    output=image.output,
                    status=Status.LABELLED if is_found else Status.EMPTY,
                    confidence=label.confidence if label is not None and is_found else 0.0,
                    reason="" if is_found else "no mask and no attention to make a pseudo-label of",
                    source="pseudo-label",
                )
            )
    return rows
