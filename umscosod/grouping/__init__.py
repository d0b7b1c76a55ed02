"""Which images of an unsorted collection show the same kind of thing, and whether a given group is one."""

from umscosod.grouping.cluster import ImageVectors, embed_images, encoded_collection
from umscosod.grouping.discover import (
    GroupCheck,
    Grouping,
    check_group,
    check_groups,
    discover_groups,
    group_vectors,
    write_groups_csv,
)

__all__ = [
    "GroupCheck",
    "Grouping",
    "ImageVectors",
    "check_group",
    "check_groups",
    "discover_groups",
    "embed_images",
    "encoded_collection",
    "group_vectors",
    "write_groups_csv",
]
