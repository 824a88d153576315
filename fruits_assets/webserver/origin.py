"""Middleware that keeps pages of other sites away from the Dagster UI.

Dagster's GraphQL executes a mutation for whoever sends one: by GET, from any page, under any name
of this machine. A page in the user's browser could launch runs with a config of its choice. The
only setting of Dagster against it is `--read-only`, with which the user cannot launch any either.
"""

import logging
from collections.abc import Iterator
from urllib.parse import urlsplit

from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

NAMES = ("localhost", "127.0.0.1")
"""Names of this machine that a browser may use: none that a foreign name server answers for."""
OWN_SITES = {"same-origin", "none"}
"""Values of Sec-Fetch-Site: a page of the UI, or the user's own hand (address bar, bookmark).

`same-site` is none of them: every other port of localhost is the same site.
"""
NOTEBOOKS = {"/notebook", "/dagit/notebook"}
"""Dagster shows any notebook file of this machine here, scripts and all, as a page of the UI."""
VIOLATION = 1008
"""Code of a WebSocket that is closed for a reason of policy (RFC 6455, 7.4.1)."""

log = logging.getLogger(__name__)


class OwnOrigin:
    """Refuses every request and WebSocket that a page of another origin can make.

    It knows the origin by Host, Origin, Referer and Sec-Fetch-Site. Beyond these, no GET changes
    anything, and whatever is sent must be JSON: a browser asks before it sends JSON to another
    origin, and that question is refused, too. Programs of this machine, which send none of these
    headers, may use the UI as before.
    """

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self._app = app
        # A browser leaves out the port that its protocol has anyway.
        self._hosts = {name if port == 80 else f"{name}:{port}" for name in NAMES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what may be, and answers the rest: 403, and why."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        reason = next(self._reasons(scope), None)
        if reason is None:
            await self._app(scope, receive, _framed(send))
            return
        log.warning("refused %s %s: %s", scope["type"], scope["path"], reason)
        refusal = (
            WebSocketClose(VIOLATION)
            if scope["type"] == "websocket"
            else PlainTextResponse(f"Refused: {reason}.\n", status_code=403)
        )
        await refusal(scope, receive, send)

    def _reasons(self, scope: Scope) -> Iterator[str]:
        """Why a request is refused; nothing where it is not."""
        connection = HTTPConnection(scope)
        yield from self._foreign(connection.headers)
        if scope["type"] == "websocket":
            # Every browser names the origin of a WebSocket: it is the only thing that guards one.
            if "origin" not in connection.headers:
                yield "a WebSocket needs an Origin"
        elif scope["method"] in {"GET", "HEAD"}:
            yield from _changing(connection.query_params)
        elif scope["method"] == "POST":
            yield from _sent_unasked(connection.headers)
        else:
            yield f"the UI has no use for the method {scope['method']}"
        if scope["path"] in NOTEBOOKS:
            yield "notebooks are not shown here, as their scripts would run as part of the UI"

    def _foreign(self, headers: Headers) -> Iterator[str]:
        hosts = headers.getlist("host")
        expected = " or ".join(sorted(self._hosts))
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            yield f"the Host is {_shown(hosts)}, and must be {expected}"
            return
        own = f"http://{hosts[0].lower()}"
        origins = headers.getlist("origin")
        if any(origin.lower() != own for origin in origins):
            yield f"the Origin is {_shown(origins)}, and must be {own}"
        sites = headers.getlist("sec-fetch-site")
        if not OWN_SITES.issuperset(sites):
            yield (
                f"it comes from another site (Sec-Fetch-Site: {_shown(sites)}). Type the address "
                f"{own} instead of following a link"
            )
        referers = headers.getlist("referer")
        if any(_origin(referer) != own for referer in referers):
            yield f"the Referer is {_shown(referers)}, and must lie below {own}"


def _shown(values: list[str]) -> str:
    return ", ".join(map(repr, values)) or "missing"


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url.lower())
    except ValueError:  # an address that is none, such as http://[
        return ""
    return f"{parts.scheme}://{parts.netloc}"


def _changing(params: QueryParams) -> Iterator[str]:
    """A GET that asks GraphQL for more than an answer, under whatever path."""
    for query in params.getlist("query"):
        try:
            found = parse(query).definitions
        except GraphQLError:  # Dagster refuses it, or it is no GraphQL
            continue
        operations = [one.operation for one in found if isinstance(one, OperationDefinitionNode)]
        if any(operation is not OperationType.QUERY for operation in operations):
            yield "a GET may hold a GraphQL query only; send a mutation by POST, as JSON"


def _sent_unasked(headers: Headers) -> Iterator[str]:
    """A POST whose type is one that browsers send to other origins without asking (CORS)."""
    types = headers.getlist("content-type")
    essences = [one.partition(";")[0].strip().lower() for one in types]
    if essences != ["application/json"]:
        yield f"the Content-Type is {_shown(types)}, and must be application/json"


def _framed(send: Send) -> Send:
    """No page of another origin may hold the UI in a frame, and have the user click on it."""

    async def framed(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
        await send(message)

    return framed
