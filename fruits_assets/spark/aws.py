"""Clients of AWS, and what it says in sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from fruits_assets.core.errors import SparkError
from fruits_assets.storage import clients
from fruits_assets.storage.aws_errors import explain
from fruits_assets.storage.region import check_region

ATTEMPTS = 8
"""Of a request: a control plane that is busy for a minute must not end a run."""
MAY = "run Spark on EMR (the policies that `make deploy` names, docs/emr.md)"


@lru_cache(maxsize=4)
def emr_client(region: str, service: str = "emr") -> Any:
    """boto3's client of EMR, or of `emr-serverless`, in the EU.

    Raises:
        RegionError: the region is not in the EU.
        EndpointError: it would be asked at another host than AWS's or this machine.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=10,
        read_timeout=60,
    )
    return clients.client(service, check_region(region), config)


@contextlib.contextmanager
def told(region: str) -> Iterator[None]:
    """Turns an error of AWS into a SparkError, whose text is meant for people."""
    try:
        yield
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        raise SparkError(f"EMR: {explain(error, region, may=MAY)}") from error
