"""FiftyOne as host: samples in, masks and maps on disk, label fields on the samples.

Masks and maps stay files (``mask_path``, ``map_path``): MongoDB documents end at 16 MB, and files are faster.
FiftyOne itself is imported inside the functions, since that import takes seconds.
"""

from umscosod.integrations.fiftyone.labels import label_dataset

__all__ = ["label_dataset"]
