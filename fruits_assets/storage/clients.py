"""The clients of AWS: this is the only place that makes them.

A client is held to the endpoint that was checked when it was made. botocore would follow a bucket
to another region, an answer to another host, or settings to an accelerator outside the region; such
a request is refused before a byte of it is sent, whatever the reason it would go there for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader, create_loader
from botocore.utils import get_environ_proxies, parse_timestamp

from fruits_assets.core.errors import EndpointError
from fruits_assets.storage.endpoints import check_endpoint, is_at, is_loopback, of_s3

SIGN_IN = {
    "sts": r"sts(\.[a-z0-9-]+)?\.amazonaws\.com|sts\.[a-z0-9-]+\.api\.aws",
    "sso": r"portal\.sso\.[a-z0-9-]+\.(amazonaws\.com|api\.aws)",
    "sso-oidc": r"oidc\.[a-z0-9-]+\.(amazonaws\.com|api\.aws)",
    "signin": r"([a-z0-9-]+\.)?signin\.aws\.amazon\.com",
}
"""Service that boto3 asks for credentials by itself -> its hosts: in any region, for companies sign
in where their directory lies, and nothing of the pipeline's goes there."""
S3 = "s3"
OWNERS = ("ExpectedBucketOwner", "ExpectedSourceBucketOwner")
"""Parameters of S3's operations; S3 refuses where the account is another one."""


def session(region: str | None = None) -> boto3.Session:
    """A session of boto3 whose requests for credentials go to AWS, or stay on this machine."""
    core = botocore.session.get_session()
    core.register_component("data_loader", _models())
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    for service in SIGN_IN:
        core.register(f"before-send.{service}", _sign_in_at_aws)
    return boto3.Session(botocore_session=core, region_name=region)


def configured_endpoint(service: str, region: str) -> str:
    """URL that a service is to be asked at, by environment and AWS's config file.

    Raises:
        EndpointError: it is neither AWS's own of the region nor on this machine.
        BotoCoreError: the settings of AWS cannot be read.
    """
    made = session()
    what = f"{service} in {region}"
    try:
        own = of_s3(region) if service == S3 else (_own_endpoint(made, service, region),)
        any_client: Any = made.client
        found = any_client(service, region_name=region).meta.endpoint_url
    except ValueError:
        raise EndpointError(
            f"the endpoint of {what} is not a URL. See that AWS_ENDPOINT_URL, and endpoint_url in "
            "the AWS config file, are like https://host:port."
        ) from None  # it quotes what it cannot read, and that may hold a password
    return check_endpoint(found, *own, what=what)


@lru_cache(maxsize=1)
def _models() -> Loader:
    """Descriptions of AWS's services, which botocore would read again for every session."""
    return create_loader()


def _own_endpoint(made: boto3.Session, service: str, region: str) -> str:
    own = Config(ignore_configured_endpoint_urls=True)
    any_client: Any = made.client
    return any_client(service, region_name=region, config=own).meta.endpoint_url


def client(service: str, region: str, config: Config, *, owner: str | None = None) -> Any:
    """A client of a service in a region, at the endpoint that is configured.

    Args:
        service: as boto3 names it.
        region: of AWS.
        config: how often and how long to try.
        owner: account that owns all buckets that are asked for.

    Raises:
        EndpointError: it would be asked at another host than AWS's or this machine.
    """
    return client_at(configured_endpoint(service, region), service, region, config, owner=owner)


def client_at(
    endpoint: str,
    service: str,
    region: str,
    config: Config,
    *,
    owner: str | None = None,
    requester_pays: bool = False,
) -> Any:
    """A client that sends requests to one endpoint, which was checked, and nowhere else."""
    held = Config(
        # What an environment or a config file says of these would lead to another host.
        use_dualstack_endpoint=False,
        use_fips_endpoint=False,
        s3={
            "addressing_style": "path" if is_loopback(endpoint) else "virtual",
            "use_accelerate_endpoint": False,
        },
        # A store on this machine is spoken to without TLS: no proxy may see that.
        proxies={} if is_loopback(endpoint) else None,
    )
    any_client: Any = session().client
    made = any_client(service, region_name=region, endpoint_url=endpoint, config=config.merge(held))
    # Other services are global, or sign for a region of their own.
    made.meta.events.register("before-send", _held_to(endpoint, region if service == S3 else ""))
    if service == S3:
        made.meta.events.register_first("needs-retry.s3", _stay)
        made.meta.events.register("before-parameter-build.s3", _expects(owner))
        if requester_pays:  # the parameter exists for some operations only, the header for all
            made.meta.events.register("before-call.s3", _pays)
    return made


def proxy_for(endpoint: str) -> str | None:
    """URL of the proxy that the environment names for an endpoint; None for this machine."""
    if is_loopback(endpoint):
        return None
    return get_environ_proxies(endpoint).get("https")


def _held_to(endpoint: str, region: str) -> Callable[..., None]:
    def check(request: Any, **_: Any) -> None:
        signed = re.search(r"Credential=[^/]+/\d+/([^/]+)/", _authorization(request.headers))
        if not is_at(request.url, endpoint) or (region and signed and signed[1] != region):
            raise EndpointError(
                f"a request would have left {endpoint} for another host or region, and was not "
                "sent. If a bucket has moved there, name its own region in FRUITS_REGION, if that "
                "is in the EU."
            )

    return check


def _authorization(headers: Mapping[str, Any]) -> str:
    value = headers.get("Authorization", "")
    return value.decode() if isinstance(value, bytes) else value


def _sign_in_at_aws(request: Any, event_name: str, **_: Any) -> None:
    service = event_name.split(".")[1]
    host = request.url.partition("://")[2].partition("/")[0]
    at_aws = request.url.startswith("https://") and re.fullmatch(SIGN_IN[service], host)
    if not at_aws and not is_loopback(request.url):
        raise EndpointError(
            f"the AWS credentials would have been asked for at a host that is not AWS's {service}, "
            "and were not. Unset AWS_ENDPOINT_URL and endpoint_url in the AWS config file."
        )


def _stay(request_dict: dict[str, Any], **_: Any) -> None:
    """Makes botocore believe that it has followed a bucket to another region already.

    It does so once per request, and has no setting for it. Should it ever not mind this, the
    request does not pass `_held_to`.
    """
    request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _expects(owner: str | None) -> Callable[..., None]:
    def expect(params: dict[str, Any], model: Any, **_: Any) -> None:
        if owner and model.input_shape:
            known = model.input_shape.members
            params |= {name: owner for name in OWNERS if name in known}

    return expect


def _pays(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def _timestamp(text: str) -> datetime:
    """Botocore's own parser tries every format: two fifths of the CPU time of a listing."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):  # a date of HTTP in headers, a number in answers of EMR
        return parse_timestamp(text)
