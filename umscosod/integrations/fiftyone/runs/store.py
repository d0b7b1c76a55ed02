"""All samples of a data set, whichever sensor they are of, and values that are known to have arrived there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umscosod.errors import DataError


def every_sample(dataset: Any) -> Any:
    """Flat view of all samples; of a data set with several sensors FiftyOne's own queries see one slice only."""
    return dataset.select_group_slices(_allow_mixed=True) if dataset.media_type == "group" else dataset


def store_values(dataset: Any, path: str, values: Mapping[str, Any]) -> None:
    """Set a field of the samples with these ids, and look whether it holds now what it is to hold.

    Parameters
    ----------
    dataset : fiftyone.core.dataset.Dataset
    path : str
        A field of the data set.
    values : mapping of str to value
        By sample id: plain values, labels, or None.

    Raises
    ------
    DataError
        Samples that are in the data set hold another value.
    """
    if not values:
        return
    dataset.set_values(path, values, key_field="id")
    is_label = getattr(dataset.get_field(path), "document_type", None) is not None
    meant = {id_: getattr(value, "id", None) if is_label else value for id_, value in values.items()}
    columns = every_sample(dataset).select(list(values)).values(["id", f"{path}.id" if is_label else path])
    wrong = sum(stored != meant[id_] for id_, stored in zip(*columns, strict=True))
    if wrong:
        raise DataError(
            f"{wrong} of {len(values)} samples did not take their value in the field {path!r} of {dataset.name!r}; "
            "see that nothing else writes it, then run again"
        )
