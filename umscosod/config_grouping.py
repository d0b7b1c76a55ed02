"""Hyper-parameters of finding groups in an unsorted collection: the part of ``config.py`` that it re-exports from here.

No section of `PipelineConfig`: how groups were found decides no mask once they are given, so that a result stays valid,
and its folder stays usable, whatever is set here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le
from typing_extensions import Doc


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupingConfig:
    """Groups discovered in an unsorted collection, and the check of groups that are given."""

    stream: Annotated[Literal["both", "first", "second"], Doc("Which of the two streams describes an image.")] = "both"
    attention_power: Annotated[
        float,
        Ge(0.0),
        Le(8.0),
        Doc("Exponent of the attention map as weight of the patches: object more than background; 0: whole image."),
    ] = 1.0
    shrinkage: Annotated[
        float,
        Ge(1e-6),
        Le(1000.0),
        Doc(
            "Ridge, in mean variances, of the whitening of patch tokens over the collection: few strong directions "
            "that all images share must not drown the rest."
        ),
    ] = 0.1
    min_size: Annotated[
        int, Ge(1), Le(100_000), Doc("Fewest images of a group; also the size below which a group is small.")
    ] = 3
    max_groups: Annotated[int, Ge(2), Le(1000), Doc("Most groups tried where their number is chosen.")] = 40
    enough_separation: Annotated[
        float,
        Ge(0.01),
        Le(1.0),
        Doc(
            "Where their number is chosen: the fewest groups whose mean silhouette reaches this share of the best; "
            "1: the best itself, which tends to many small groups."
        ),
    ] = 0.8
    join_similarity: Annotated[
        float,
        Ge(-1.0),
        Le(1.0),
        Doc("Cosine to the nearest group's mean below which an image is left over."),
    ] = 0.0
    rounds: Annotated[
        int, Ge(0), Le(1000), Doc("Reassignments of all images to the nearest group after the cut, at most.")
    ] = 10
    sample_images: Annotated[
        int,
        Ge(2),
        Le(20_000),
        Doc(
            "Images in the tree; of larger collections a random sample, to whose groups the others are assigned "
            "(memory grows with the square: 3000 take 40 MB)."
        ),
    ] = 3000
    mixed_draws: Annotated[
        int, Ge(20), Le(100_000), Doc("Random draws from the collection that a group's cohesion is compared with.")
    ] = 200
    mixed_images: Annotated[
        int,
        Ge(2),
        Le(100_000),
        Doc("Images of a draw at most: what chance gives so many changes little; time grows with their square."),
    ] = 200
    mixed_quantile: Annotated[
        float,
        Ge(0.001),
        Le(1.0),
        Doc("A group is mixed unless the lower quartile of its pairs lies above this quantile of the draws'."),
    ] = 0.95
