"""Dagster Pipes through a bucket: the request and the messages of a step, gone after it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_aws.pipes import PipesS3ContextInjector, PipesS3MessageReader

from fruits_assets.core.errors import FruitsError
from fruits_assets.lake.resource import Context
from fruits_assets.storage import s3
from fruits_assets.storage.base import Folder, join

MESSAGE_SECONDS = 1.0
"""Between two looks for messages, at least."""


@dataclass(frozen=True)
class Session:
    """A session that a program on a cluster takes part in.

    Attributes:
        arguments: by which the program finds it.
        begun: whether the program has opened it.
    """

    arguments: Mapping[str, str]
    begun: Callable[[], bool]


@contextlib.contextmanager
def session(
    context: Context,
    place: Folder,
    request: Mapping[str, Any],
    reports: list[Mapping[str, Any]],
) -> Iterator[Session]:
    """A session whose request and messages lie below prefixes of their own.

    The request is no argument of the step: whoever may describe steps could read it there.

    Args:
        context: of the asset, check or op.
        place: a folder of a bucket, below which the messages of all steps lie.
        request: `extras` of the session.
        reports: the step's custom messages are added to it when the session is closed.

    Raises:
        S3Error: the bucket refuses.
    """
    assert isinstance(place.storage, s3.S3Storage)  # noqa: S101 - clusters see nothing else
    bucket = place.storage.bucket
    name, client = uuid.uuid4().hex, s3.client_of(bucket)
    requests, messages = (join(place.uri, kind, name) for kind in ("requests", "messages"))
    # Pipes knows assets and ops; what checks are given wraps the context of an op.
    op: Any = getattr(context, "op_execution_context", context)
    opened: dg.PipesSession | None = None
    try:
        with (
            s3.told(bucket.name),
            dg.open_pipes_session(
                context=op,
                context_injector=PipesS3ContextInjector(
                    bucket=bucket.name, client=client, key_prefix=f"{s3.split(requests)[1]}/"
                ),
                message_reader=_Reader(s3.split(messages)[1], bucket=bucket.name, client=client),
                extras=dict(request),
            ) as opened,
        ):
            handler = opened.message_handler
            yield Session(
                opened.get_bootstrap_cli_arguments(), lambda: handler.received_opened_message
            )
    finally:
        if opened:
            reports += opened.get_custom_messages()
        with contextlib.suppress(FruitsError):  # the bucket's lifecycle removes them, too
            for folder in (requests, messages):
                place.storage.remove({found.uri for found in place.storage.everything(folder)})


class _Reader(PipesS3MessageReader):
    """Reads messages below a prefix that is given, and not at the root of the bucket."""

    def __init__(self, prefix: str, *, bucket: str, client: Any) -> None:
        super().__init__(
            interval=MESSAGE_SECONDS, bucket=bucket, client=client, include_stdio_in_messages=True
        )
        self._prefix = prefix

    @contextlib.contextmanager
    def get_params(self) -> Iterator[dict[str, Any]]:
        with super().get_params() as params:
            yield {**params, "key_prefix": self._prefix}
