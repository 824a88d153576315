"""S3 servers on loopback for tests, and a gate before them that counts and disturbs requests."""

import contextlib
import itertools
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

import boto3
import pytest
from botocore.config import Config

from fruits_assets.spark import aws
from fruits_assets.storage import s3

REGION = "eu-west-3"
ACCESS_KEY = "AKIAFRUITSTESTSONLY"
SECRET_KEY = "never-to-be-seen-in-any-text"  # noqa: S105 - opens nothing but these servers
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
}
REPOSITORY = Path(__file__).parent.parent
START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server that speaks S3's protocol.

    Attributes:
        endpoint: its URL.
        folder: in which it keeps the objects of each bucket as files; None where it does not.
        minds_markers: whether a delete marker counts as an object for `If-None-Match`, which it
            does not for S3.
    """

    endpoint: str
    folder: Path | None = None
    minds_markers: bool = False

    @property
    def client(self) -> Any:
        """A client of the tests' own: what is tested does not look at itself."""
        return _client(self.endpoint)

    def bucket(self, *, versioned: bool = True) -> str:
        """The name of a new bucket, in `REGION`."""
        name = f"fruits-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        if versioned:
            self.client.put_bucket_versioning(
                Bucket=name, VersioningConfiguration={"Status": "Enabled"}
            )
        return name


@lru_cache(maxsize=8)
def _client(endpoint: str) -> Any:
    return boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION).client(
        "s3", endpoint_url=endpoint, config=Config(retries={"total_max_attempts": 1})
    )


@contextlib.contextmanager
def used(endpoint: str) -> Iterator[None]:
    """The pipeline finds its buckets at an endpoint, and is connected to none yet."""
    aws.emr_client.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        for name, function in _clients_of(endpoint).items():
            patch.setattr(s3, name, function)
        s3._verified_region.cache_clear()
        yield


@lru_cache(maxsize=64)
def _clients_of(endpoint: str) -> dict[str, Any]:
    """Cached client functions of one endpoint: a client takes a tenth of a second to make."""
    names = ("_client", "_store", "_verified_region")
    return {name: lru_cache(maxsize=8)(getattr(s3, name).__wrapped__) for name in names}


def forget() -> None:
    """As in a new process: nothing is connected, no client is open."""
    _clients_of.cache_clear()
    s3._client.cache_clear()
    s3._session.cache_clear()
    s3._store.cache_clear()
    s3._verified_region.cache_clear()
    aws.emr_client.cache_clear()


@contextlib.contextmanager
def moto() -> Iterator[Server]:
    """The emulator of AWS, in a process of its own: it changes the boto3 of its process."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port):
        yield Server(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def versitygw(folder: Path) -> Iterator[Server]:
    """A gateway from S3's protocol to a folder: it checks signatures, and minds concurrency.

    Skips the test where it is not built.
    """
    program = _versitygw()
    data, versions = folder / "data", folder / "versions"
    for path in (data, versions):
        path.mkdir()
    port = free_port()
    command = [str(program), "--port", f"127.0.0.1:{port}", "--region", REGION, "--quiet"]
    keys = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
    with running([*command, "posix", "--versioning-dir", str(versions), str(data)], port, **keys):
        yield Server(f"http://127.0.0.1:{port}", data, minds_markers=True)


def _versitygw() -> Path:
    """The program that `make test-tools` has built."""
    found = sorted((REPOSITORY / ".cache" / "bin").glob("versitygw-*"))
    if not found:
        pytest.skip("versitygw is not built: install Go, then `make test-tools`")
    return found[-1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], port: int, **environment: str) -> Iterator[None]:
    """A program, from when its port answers until the block ends."""
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(port):
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{command} does not answer"
                time.sleep(0.02)
            yield
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclass
class Request:
    """A request that came to the gate.

    Attributes:
        method: of HTTP.
        bucket: its name.
        key: of the object, decoded; empty where the request is about the bucket.
        query: name -> value.
        headers: lower-case name -> value.
        size: of its body, in bytes.
        answered: size of the body of its answer, in bytes.
    """

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    size: int
    answered: int = field(default=0, compare=False)

    @property
    def of_obstore(self) -> bool:
        """Whether obstore sent it, and not boto3."""
        return self.headers["user-agent"].startswith("object_store")

    @property
    def makes_object(self) -> bool:
        """Whether it says how an object is to be stored."""
        return (self.method == "PUT" and "partNumber" not in self.query) or "uploads" in self.query


@dataclass(frozen=True)
class Answer:
    """What the gate answers.

    Attributes:
        status: of HTTP.
        body: its content.
        headers: name -> value.
        cut: so many bytes of the body are sent before the connection breaks; None: all, no break.
        more: is sent after the body, for as long as it goes on and the client listens.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    more: Iterable[bytes] = ()


Rule = Callable[[Request, Callable[[], Answer]], Answer | None]
"""(request, forward) -> answer; None breaks the connection. `forward()` asks the server behind."""


def refusal(status: int, code: str, message: str = "", **headers: str) -> Answer:
    """An error as S3 words it, together with what its text must not be quoted for."""
    details = (
        f"<AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><StringToSign>{SECRET_KEY}</StringToSign>"
    )
    body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>{details}</Error>"
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body.encode(), {"Content-Type": "application/xml", **fields})


SLOW_DOWN = refusal(503, "SlowDown", "Please reduce your request rate.")


def in_region(region: str | None) -> Answer:
    """A bucket's answer to where it lies."""
    return Answer(headers={"x-amz-bucket-region": region} if region else {})


def forwarded(_: Request, forward: Callable[[], Answer]) -> Answer:
    """The rule of an open gate."""
    return forward()


def always(answer: Answer | None) -> Rule:
    """The rule of a server that knows one answer only."""
    return lambda *_: answer


def by(answer_to: Callable[[Request], Answer | None]) -> Rule:
    """The rule of a server that has nothing behind it."""
    return lambda request, _: answer_to(request)


HARMS = ("busy", "broken", "reset before", "reset after", "cut")


class BadConnection:
    """A rule that does some harm to one request in five.

    Attributes:
        done: what harm, and how often.
    """

    def __init__(self, *, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._random = random.Random(seed)  # noqa: S311 - the same harm in every run
        self._lock = threading.Lock()

    def __call__(self, _: Request, forward: Callable[[], Answer]) -> Answer | None:
        with self._lock:
            harm = self._random.choice(HARMS) if self._random.random() < 0.2 else None
            cut = self._random.random()
            if harm:
                self.done[harm] += 1
        match harm:
            case "busy":
                return SLOW_DOWN
            case "broken":
                return refusal(500, "InternalError")
            case "reset before":
                return None
            case "reset after":
                forward()
                return None
            case "cut":
                answer = forward()
                return replace(answer, cut=int(cut * len(answer.body)))
        return forward()


class Gate:
    """A server that records every request, and passes it on or answers it by a rule.

    Attributes:
        endpoint: its URL.
        requests: in the order in which they came.
        rule: decides about each; may be changed at any time.
    """

    def __init__(self, rule: Rule = forwarded, *, before: str | None = None) -> None:
        self.rule = rule
        self.requests: list[Request] = []
        self._behind = urlsplit(before).netloc if before else None
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Gate":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def open(self) -> None:
        """Passes everything on, and knows of nothing that was asked before."""
        self.rule = forwarded
        self.requests.clear()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: Request, target: str, body: bytes) -> Answer | None:
        """What to answer, by the rule; None for nothing at all."""
        self.requests.append(request)
        return self.rule(request, lambda: self._forwarded(request, target, body))

    def _forwarded(self, request: Request, target: str, body: bytes) -> Answer:
        assert self._behind, "there is no server behind this gate"
        connection = HTTPConnection(self._behind, timeout=60)
        with contextlib.closing(connection):
            # The signature is about the host that the client sees: its headers stay as they are.
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in {"connection", "expect"}:
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
            headers = {
                name: value
                for name, value in response.getheaders()
                if name.lower() not in {"connection", "transfer-encoding", "date", "server"}
                and (request.method == "HEAD" or name.lower() != "content-length")
            }
            return Answer(response.status, content, headers)


def _request(method: str, target: str, headers: Iterable[tuple[str, str]], size: int) -> Request:
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path)[1:].partition("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    named = {name.lower(): value for name, value in headers}
    return Request(method, bucket, key, query, named, size)


def _complete(answer: Answer) -> dict[str, str]:
    """The headers of an answer; those to HEAD say how long the body would be."""
    if {"content-length", "transfer-encoding"} & {name.lower() for name in answer.headers}:
        return dict(answer.headers)
    return {**answer.headers, "Content-Length": str(len(answer.body))}


def _send(answer: Answer, to: BufferedIOBase, request: Request) -> None:
    for chunk in itertools.chain([answer.body[: answer.cut]], answer.more):
        to.write(chunk)
        to.flush()
        request.answered += len(chunk)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False


def _handler(gate: Gate) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            request = _request(self.command, self.path, self.headers.items(), len(body))
            answer = gate.answer(request, self.path, body)
            if answer is None:
                self._break()
                return
            self.send_response_only(answer.status)
            for name, value in _complete(answer).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                _send(answer, self.wfile, request)
            if answer.cut is not None:
                self.wfile.flush()
                self._break()

        def _break(self) -> None:
            """Ends the connection in the middle of what the client waits for."""
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the client may go when it likes
                super().handle()

        def handle_expect_100(self) -> bool:
            told = super().handle_expect_100()
            self.wfile.flush()  # or the client waits a second before it sends its body
            return told

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle  # noqa: N815

    return Handler
