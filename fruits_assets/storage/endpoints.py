"""Where requests to AWS may go: the hosts of one region, over TLS, or a store on this machine."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from fruits_assets.core.errors import EndpointError, S3Error
from fruits_assets.storage.base import S3

BUCKET_NAME = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""S3's rule. An ARN is none: it may name an access point of another region."""
PORTS = {"http": 80, "https": 443}
EXPECTED = (
    "Expected {expected}, or a store on this machine, such as http://127.0.0.1:9000. Nothing was "
    "sent. Unset AWS_ENDPOINT_URL, and endpoint_url in the AWS config file (AWS_CONFIG_FILE, "
    "~/.aws/config), or correct them."
)


def split(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b` -> (bucket, a/b). Raises S3Error where there is no name of a bucket."""
    rest = uri.removeprefix(S3)
    bucket, _, key = rest.partition("/")
    if BUCKET_NAME.fullmatch(bucket):
        return bucket, key.lstrip("/")
    if ":" in bucket or "@" in rest:  # it may hold a password: not even its begin is shown
        raise S3Error(
            "an s3:// URI has a user, a password or a port before its bucket, or is an ARN (it is "
            "not shown). Expected s3://bucket/prefix. Credentials belong to AWS's default chain: "
            "the environment, a profile, SSO (docs/s3.md)."
        )
    if not bucket:
        raise S3Error(f"{uri} names no bucket. Expected s3://bucket/prefix.")
    raise S3Error(
        f"Invalid bucket name {bucket!r} in {uri}. Expected s3://bucket/prefix, with a bucket of 3 "
        "to 63 lower-case letters, digits, dots and hyphens."
    )


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine, whatever a resolver of names says."""
    host = _parts(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def of_s3(region: str) -> tuple[str, str]:
    """The endpoints of S3 in a region: the usual one, and the one that speaks IPv6, too."""
    return f"https://s3.{region}.amazonaws.com", f"https://s3.dualstack.{region}.amazonaws.com"


def check_endpoint(url: str, *expected: str, what: str) -> str:
    """An endpoint that was configured, where requests may go there.

    Args:
        url: of the endpoint.
        *expected: AWS's own endpoints.
        what: whose endpoint it is, for people.

    Returns:
        The URL, without a path.

    Raises:
        EndpointError: it is neither AWS's nor on this machine.
    """
    advice = EXPECTED.format(expected=" or ".join(expected))
    parts = _parts(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise EndpointError(f"the endpoint of {what} is not a URL (AWS_ENDPOINT_URL). {advice}")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise EndpointError(
            f"the endpoint of {what} has a user or a password before its host (not shown). {advice}"
        )
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise EndpointError(f"the endpoint of {what} is more than a host and a port. {advice}")
    base = f"{parts.scheme}://{parts.netloc.lower()}"
    if is_loopback(url):
        return base
    if _origin(base) not in {_origin(one) for one in expected}:
        plain = ", without TLS" if parts.scheme == "http" else ""
        raise EndpointError(f"the endpoint of {what} is {parts.netloc}{plain}. {advice}")
    return base


def is_at(url: str, endpoint: str) -> bool:
    """Whether a request goes to an endpoint, or to a bucket that is part of its host's name."""
    asked, held = _origin(url), _origin(endpoint)
    same = (asked[0], asked[2]) == (held[0], held[2])
    within = not is_loopback(endpoint) and asked[1].endswith(f".{held[1]}")
    return same and (asked[1] == held[1] or within)


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port."""
    parts = _parts(url)
    host = "" if "@" in parts.netloc else parts.hostname or ""
    return parts.scheme, host, parts.port or PORTS.get(parts.scheme)


def _parts(url: str) -> SplitResult:
    """The parts of a URL; empty ones of what is none."""
    # Programs disagree about what a backslash or a blank means: here, it is no URL.
    plain = "" if re.search(r"[\\\s\x00-\x1f]", url) else url
    try:
        parts = urlsplit(plain)
        _ = parts.port  # raises ValueError, too
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts
