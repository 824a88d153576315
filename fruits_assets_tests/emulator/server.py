"""AWS on one port: moto, with EMR and the tests' control of it before it."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote

from moto.core.responses import BaseResponse
from moto.emr.responses import ElasticMapReduceResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from fruits_assets_tests.emulator import (
    cloudformation,  # noqa: F401 - moto finds what it adds
    processes,
)
from fruits_assets_tests.emulator.api import RefusalError, Service
from fruits_assets_tests.emulator.clusters import Cluster
from fruits_assets_tests.emulator.plan import NODE_KEY, Plan
from fruits_assets_tests.emulator.serverless import SERVICE as SERVERLESS
from fruits_assets_tests.emulator.serverless import Serverless, summary
from fruits_assets_tests.s3 import ACCESS_KEY, REGION

CONTROL = "/emulator/"
WRONG_REGION = (
    "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is "
    f"malformed; the region '%s' is wrong; expecting '{REGION}'</Message></Error>"
)
Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Signature(NamedTuple):
    """Who asks for what, as the signature of a request says it."""

    access_key: str
    region: str
    service: str

    @classmethod
    def of(cls, environ: Environ) -> Signature:
        """Reads the header, or the query of a presigned address."""
        query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
        header = environ.get("HTTP_AUTHORIZATION", "")
        scope = header.partition("Credential=")[2].partition(",")[0]
        parts = (scope or query.get("X-Amz-Credential", "")).split("/")
        return cls(parts[0], parts[2], parts[3]) if len(parts) == 5 else cls(parts[0], "", "s3")


class Application:
    """The WSGI application.

    Attributes:
        service: EMR.
        serverless: EMR Serverless.
        history: the calls that came, but those of S3's objects and buckets.
        expired: access keys whose credentials have expired.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.serverless = Serverless(service.endpoint, service.folder, service.next_plan)
        self.history: list[dict[str, Any]] = []
        self.expired: set[str] = set()
        # moto looks for EMR's region in the host, which is the same for all of them here.
        ElasticMapReduceResponse.get_region_from_url = BaseResponse.get_region_from_url
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(CONTROL):
            return self._control(path.removeprefix(CONTROL), environ, start_response)
        signature = Signature.of(environ)
        action, parameters = self._asked(signature, environ)
        if action:
            with self._lock:
                self.history.append(
                    {
                        "service": signature.service,
                        "region": signature.region,
                        "action": action,
                        "parameters": parameters,
                        "access_key": signature.access_key,
                        "time": time.time(),
                    }
                )
        if signature.access_key in self.expired:
            _body(environ)
            return _expired(signature, environ, start_response)
        own = {"elasticmapreduce": self.service, SERVERLESS: self.serverless}.get(signature.service)
        if own and own.knows(action):
            return self._answered(own, action, parameters, signature, start_response)
        if signature.access_key == NODE_KEY and signature.region != REGION:
            # moto takes any region; S3 does not.
            return _answer(start_response, "400 Bad Request", WRONG_REGION % signature.region)
        if signature.service == "s3" and self._loses(environ):
            etag = hashlib.md5(_body(environ), usedforsecurity=False).hexdigest()
            return _answer(start_response, "200 OK", "", ("ETag", f'"{etag}"'))
        return self._moto(environ, start_response)

    def _asked(self, signature: Signature, environ: Environ) -> tuple[str, dict[str, Any]]:
        if signature.service != SERVERLESS:
            return _call(environ)
        body = json.loads(_body(environ) or b"{}")
        path = environ["PATH_INFO"]
        return self.serverless.action(environ["REQUEST_METHOD"], path, body)

    @staticmethod
    def _answered(
        service: Service | Serverless,
        action: str,
        parameters: dict[str, Any],
        signature: Signature,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        try:
            answer = service.answer(action, parameters, region=signature.region)
        except RefusalError as error:
            return _refused(start_response, error.code, str(error))
        return _answer(start_response, "200 OK", json.dumps(answer))

    def _loses(self, environ: Environ) -> bool:
        """Whether a request puts an object that a plan wants to be lost."""
        if environ["REQUEST_METHOD"] != "PUT":
            return False
        plans = [self.service.plan, *(it.plan for it in list(self.service.clusters.values()))]
        raw = environ["PATH_INFO"].encode("latin-1", "replace").decode(errors="replace")
        uri = f"s3://{unquote(raw).lstrip('/')}"
        return any(plan.lose_messages and uri.startswith(plan.lose_messages) for plan in plans)

    # -------------------------------------------------------------------------------- control

    def _control(
        self, name: str, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        parameters = json.loads(_body(environ) or b"{}")
        try:
            answer = getattr(self, f"do_{name}")(**parameters)
        except (AttributeError, LookupError, TypeError, TimeoutError) as error:
            return _answer(start_response, "409 Conflict", json.dumps({"problem": repr(error)}))
        return _answer(start_response, "200 OK", json.dumps(answer))

    def do_plan(self, *, once: bool, **options: Any) -> None:
        """Decides what becomes of all clusters created from now on, or of the next one."""
        with self.service.lock:
            if once:
                self.service.plans.append(Plan(**options))
            else:
                self.service.plan = Plan(**options)

    def do_kill_cluster(self, *, id: str, code: str, message: str) -> None:  # noqa: A002
        """Ends a cluster as AWS would, under whatever runs."""
        self.service.clusters[id].end("TERMINATED_WITH_ERRORS", code, message)

    def do_expire_credentials(self) -> None:
        """The user's credentials are refused from now on."""
        self.expired.add(ACCESS_KEY)

    def do_restore_credentials(self) -> None:
        """The user's credentials are good again."""
        self.expired.clear()

    def do_history(self) -> list[dict[str, Any]]:
        """All calls so far."""
        with self._lock:
            return list(self.history)

    def do_clusters(self) -> list[dict[str, Any]]:
        """All clusters so far, in the order of their creation."""
        return [_summary(cluster) for cluster in list(self.service.clusters.values())]

    def do_step_processes(self) -> list[int]:
        """Processes of steps and of job runs that are alive."""
        return [
            process.pid
            for cluster in list(self.service.clusters.values())
            for session in cluster.sessions
            for process in processes.members(session)
        ] + [pid for run in list(self.serverless.runs.values()) for pid in run.running()]

    def do_job_runs(self) -> list[dict[str, Any]]:
        """All job runs of EMR Serverless so far, in the order of their beginning."""
        return [summary(run) for run in list(self.serverless.runs.values())]

    def do_reset(self) -> None:
        """Ends all clusters, and forgets everything about them and what was planned."""
        with self.service.lock:
            self.service.plan, self.service.plans[:] = Plan(), []
            clusters = list(self.service.clusters.values())
            self.service.clusters.clear()
            self.service.public_access.clear()
        for cluster in clusters:
            cluster.end("TERMINATED", "USER_REQUEST", "The test is over")
        self.serverless.reset()
        self.expired.clear()
        with self._lock:
            self.history.clear()


def _summary(cluster: Cluster) -> dict[str, Any]:
    with cluster.changed:
        reason = cluster.end_reason
        return {
            "id": cluster.id,
            "name": cluster.name,
            "region": cluster.region,
            "states": list(cluster.states),
            "code": reason.code if reason else None,
            "message": reason.message if reason else None,
            "tags": cluster.tags,
            "request": cluster.request,
            "folder": str(cluster.node.folder),
            "instances": sum(one.ended is None for one in cluster.instances),
            "steps": [
                {
                    "id": step.id,
                    "name": step.config["Name"],
                    "state": step.state,
                    "args": step.config["HadoopJarStep"].get("Args", []),
                }
                for step in cluster.steps
            ],
        }


def _body(environ: Environ) -> bytes:
    """The whole body of a request, which can be read again."""
    if environ.get("wsgi.input_terminated"):
        content = environ["wsgi.input"].read()
    else:
        content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(content)
    return content


def _call(environ: Environ) -> tuple[str, dict[str, Any]]:
    """The action and its parameters; ("", {}) for a request of S3, which has neither."""
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        return target.rpartition(".")[2], json.loads(_body(environ) or b"{}")
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        form = {name: found[0] for name, found in parse_qs(_body(environ).decode()).items()}
        return form.pop("Action", ""), form
    return "", {}


def _answer(
    start_response: StartResponse, status: str, body: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    content = body.encode()
    start_response(
        status,
        [
            ("Content-Type", "application/x-amz-json-1.1"),
            ("Content-Length", str(len(content))),
            *headers,
        ],
    )
    return [content]


def _refused(start_response: StartResponse, code: str, message: str) -> Iterable[bytes]:
    body = json.dumps({"__type": code, "message": message, "Message": message})
    return _answer(start_response, "400 Bad Request", body)


def _expired(
    signature: Signature, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    if environ.get("HTTP_X_AMZ_TARGET") or signature.service == SERVERLESS:
        message = "The security token included in the request is expired"
        return _refused(start_response, "ExpiredTokenException", message)
    error = (
        "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
    )
    if signature.service == "s3":
        body = "" if environ["REQUEST_METHOD"] == "HEAD" else error
        return _answer(start_response, "400 Bad Request", body)
    body = f"<ErrorResponse>{error}</ErrorResponse>"
    return _answer(start_response, "403 Forbidden", body)
