"""``umscosod discover``: groups of an unsorted collection, as a list for the other commands."""

from __future__ import annotations

from umscosod.cli import arguments as args
from umscosod.cli.console import ProgressBar, say
from umscosod.config import PipelineConfig
from umscosod.data.files import check_place
from umscosod.errors import DataError, count_of
from umscosod.types import ImageRef

_LISTED = 20


def discover(command: args.Discover, config: PipelineConfig) -> int:
    """Propose groups, write the list, and say how large and how alike they are; 1 if images could not be read."""
    from umscosod.data.groups import groups_from_images
    from umscosod.grouping import discover_groups, write_groups_csv
    from umscosod.grouping.discover import check_listable

    if command.out.suffix.lower() != ".csv":
        raise DataError(f"--out {command.out} must end in .csv, by which the other commands know a list")
    check_place(command.out.parent)
    if command.out.exists() and not command.overwrite:  # before the work, not only after it
        raise DataError(f"--out {command.out} is there, and may hold corrections; choose another, or pass --overwrite")
    images = groups_from_images(command.images)
    check_listable(images, command.out)
    with ProgressBar() as progress:
        found = discover_groups(
            images, n_groups=command.n_groups, config=config, grouping=command.grouping, progress=progress
        )
    say("".join(f"note: {note}\n" for note in found.notes), end="")
    for image_id, reason in found.failures.items():
        say(f"failed: {image_id}: {reason}")
    path = write_groups_csv(found.groups, command.out, overwrite=command.overwrite)
    for group, check in zip(found.groups, found.checks, strict=True):
        remark = f"  ({check.reason})" if check.reason else ""
        say(f"{group.name}  {check.size:5} images  cohesion {check.cohesion:.3f}{remark}")
    say(_describe_leftover(found.leftover), end="")
    grouped = sum(len(group.images) for group in found.groups)
    say(f"{count_of(grouped, 'image')} in {count_of(len(found.groups), 'group')}: {path}")
    return int(bool(found.failures))


def _describe_leftover(images: tuple[ImageRef, ...]) -> str:
    if not images:
        return ""
    names = [f"  {image.id}" for image in images[:_LISTED]]
    if len(images) > _LISTED:
        names.append(f"  ... and {len(images) - _LISTED} more")
    return "\n".join([f"like no group, and not in the list: {len(images)}", *names, ""])
