"""The errors that a person reads: what was found, what was expected, what to do next."""

import os
import re

HIDDEN = "***"
"""Stands where a secret stood."""
SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # User and password of a URL, up to the last @ that can end them: AWS's secret keys hold
        # slashes, so that a password may look like the begin of a path.
        r"(?<=://)[^\s/:@]*:[^\s\"'<>]*(?=@)",
        r"(?<=://)[^\s/\"'<>]*(?=@)",
        # The same of a proxy, which needs no scheme.
        r"\b[\w.%+~-]+:[^\s@/\"'<>]+(?=@[\w.-]+:\d)",
        # Key ids of AWS.
        r"\b(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|ANPA|AROA|A3T[A-Z0-9])[A-Z0-9]{12,}\b",
        # Signed URLs, and headers that sign.
        r"(?<=[?&;])(?:X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature)"
        r"=[^\s&\"'<>]*",
        r"\bAWS4-HMAC-SHA256\b.*?Signature=[0-9a-f]*",
        r"\bAWS [A-Z0-9]{16,}:[A-Za-z0-9+/=]+",
        # Whatever is named as a secret: in a file of settings, in JSON, as an element, a header.
        r"\b(?:[\w-]*(?:secret[-_]?(?:access[-_]?)?key|(?:session|security)[-_]?token|password|passwd"
        r"|client[-_]?secret)|authorization)"
        r"[\"']?\s*(?:[=:>]|=>)\s*[\"']?(?:(?:basic|bearer)\s+)?[^\s\"'<>,;&}]+",
    )
)
"""Patterns of secrets, which no text ever shows."""
SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
"""Their values are never shown, whatever they look like, but for words such as `test`."""
SHORTEST_SECRET = 8
"""Characters. A shorter value is a word of many texts, and opens nothing but an emulator."""


def without_secrets(text: str) -> str:
    """A text as it may be shown and logged: no password of a URL, no key, no token, no signature.

    Libraries quote URLs, requests and what servers answer; some of that opens doors.
    """
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, HIDDEN)
    for pattern in SECRETS:
        text = pattern.sub(HIDDEN, text)
    return text


class FruitsError(Exception):
    """Base of every error that the pipeline raises on purpose; its text is meant for people."""

    def __init__(self, text: str = "") -> None:
        """Keeps the text without the secrets that it may quote."""
        super().__init__(without_secrets(text))


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


class EndpointError(S3Error):
    """An endpoint was configured that is neither AWS's of the region nor on this machine."""


class ConflictError(LakeError):
    """Another run published meanwhile."""


class LeaseError(LakeError):
    """Another run is at work in the lake, or this one has lost its lease."""


class ErasureError(FruitsError):
    """An erasure cannot be done, or has left something."""
