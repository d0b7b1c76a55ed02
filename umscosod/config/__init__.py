"""Settings: what can be set (``settings``), how it is described (``schema``), read and written (``io``)."""

from umscosod.config.settings import (
    AfmmConfig,
    CfmmConfig,
    ConfidenceConfig,
    CrfConfig,
    DataConfig,
    DecoderConfig,
    FeaturesConfig,
    FramConfig,
    GroupingConfig,
    Method,
    NetworkConfig,
    PipelineConfig,
    PseudoConfig,
    RefineConfig,
    TrainConfig,
)

__all__ = [
    "AfmmConfig",
    "CfmmConfig",
    "ConfidenceConfig",
    "CrfConfig",
    "DataConfig",
    "DecoderConfig",
    "FeaturesConfig",
    "FramConfig",
    "GroupingConfig",
    "Method",
    "NetworkConfig",
    "PipelineConfig",
    "PseudoConfig",
    "RefineConfig",
    "TrainConfig",
]
