"""The errors that a person reads: what was found, what was expected, what to do next."""


class FruitsError(Exception):
    """Base of every error that the pipeline raises on purpose; its text is meant for people."""


class SourceError(FruitsError):
    """The source cannot be ingested (missing, empty, not a folder, not permitted, ...)."""


class WeightsError(FruitsError):
    """The weights cannot be turned into a model (missing, truncated, another architecture, ...)."""


class PcaError(FruitsError):
    """The requested PCA does not exist for these features."""


class DatasetError(FruitsError):
    """A version in the lake is missing, unfinished or damaged."""


class LakeError(FruitsError):
    """The lake itself cannot be used (not writable, disk full, region outside the EU, ...)."""


class SparkError(FruitsError):
    """Spark cannot be started."""


class RegionError(FruitsError):
    """A place outside the European Union was named, or one that does not say where it lies."""


class S3Error(FruitsError):
    """S3 refuses or cannot be reached (credentials, permissions, network, throttling, ...)."""


class ConflictError(LakeError):
    """Another run published meanwhile."""


class LeaseError(LakeError):
    """Another run is at work in the lake, or this one has lost its lease."""


class ErasureError(FruitsError):
    """An erasure cannot be done, or has left something."""
