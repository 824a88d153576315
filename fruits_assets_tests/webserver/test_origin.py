"""The UI answers its own pages and programs of this machine, and no page of another origin."""

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import dagster as dg
import pytest
import uvicorn

from fruits_assets.webserver import compat
from fruits_assets.webserver.origin import OwnOrigin
from fruits_assets_tests import s3

JSON = "application/json"
QUERY = "{ version }"
HARM = 'mutation { setConcurrencyLimit(concurrencyKey: "harm", limit: 1) }'
"""It stands for every mutation: one that launches a run, one that launches an erasure."""
HEADERS: Mapping[str, Mapping[str, str]] = {
    "a foreign Host": {"Host": "evil.example:{port}"},
    "a Host that was rebound": {"Host": "127.0.0.1.evil.example:{port}"},
    "a Host with a dot": {"Host": "localhost.:{port}"},
    "a Host of another port": {"Host": "localhost:8080"},
    "a Host without its port": {"Host": "localhost"},
    "a Host of the network": {"Host": "192.168.0.7:{port}"},
    "a Host that means all": {"Host": "0.0.0.0:{port}"},
    "a loopback that is not served": {"Host": "[::1]:{port}"},
    "an empty Host": {"Host": ""},
    "a user in the Host": {"Host": "localhost:{port}@evil.example"},
    "a foreign Origin": {"Origin": "https://evil.example"},
    "an Origin of another port": {"Origin": "http://localhost:8080"},
    "an Origin of another name": {"Origin": "http://127.0.0.1:{port}"},
    "an Origin of another scheme": {"Origin": "https://localhost:{port}"},
    "an Origin like the own": {"Origin": "{own}.evil.example"},
    "an opaque Origin": {"Origin": "null"},
    "an empty Origin": {"Origin": ""},
    "two Origins": {"Origin": "{own}, https://evil.example"},
    "a foreign Referer": {"Referer": "https://evil.example/page"},
    "a Referer like the own": {"Referer": "{own}@evil.example/"},
    "a broken Referer": {"Referer": "http://["},
    "a foreign site": {"Sec-Fetch-Site": "cross-site"},
    "another port of this site": {"Sec-Fetch-Site": "same-site"},
    "an unknown site": {"Sec-Fetch-Site": "SAME-ORIGIN, cross-site"},
    "a foreign site that claims the own Origin": {
        "Sec-Fetch-Site": "cross-site",
        "Origin": "{own}",
    },
}
"""What a page of another origin, or one under another name, sends."""
TYPES = [
    "text/plain",
    "text/plain; charset=application/json",
    "text/plain; application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=application/json",
    "application/graphql",
    "application/jsonp",
    "application/json, text/plain",
    "",
    None,
]
"""Types that browsers send to other origins without asking, and that Dagster reads all the same."""
PATHS = [
    *("/", "/graphql", "/server_info", "/dagit_info", "/notebook", "/favicon.png"),
    *("/report_asset_materialization/a", "/report_asset_check/a", "/report_asset_observation/a"),
    *("/download_debug/a", "/logs/a", "/assets/raw_images", "/vendor/graphiql/graphiql.min.js"),
]


@dataclass(frozen=True)
class Served:
    """A running webserver of Dagster, behind the middleware."""

    port: int
    instance: dg.DagsterInstance

    @property
    def own(self) -> str:
        """The origin of its pages."""
        return f"http://localhost:{self.port}"

    def headers(self, named: Mapping[str, str]) -> list[tuple[str, str]]:
        """Headers of a request, one Host among them."""
        given = {"Host": "localhost:{port}", **named}
        return [(name, value.format(port=self.port, own=self.own)) for name, value in given.items()]

    def ask(
        self, method: str, path: str, named: Mapping[str, str] | None = None, *, body: str = ""
    ) -> tuple[int, str]:
        """Sends a request as it is given; status and answer."""
        return self.send(method, path, self.headers(named or {}), body)

    def send(
        self, method: str, path: str, headers: list[tuple[str, str]], body: str = ""
    ) -> tuple[int, str]:
        """Sends these headers and no others but the length; status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in [*headers, ("Content-Length", str(len(body.encode())))]:
                connection.putheader(name, value)
            connection.endheaders(body.encode())
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def post(self, query: str, named: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Asks GraphQL as the pages of the UI do."""
        headers = {"Content-Type": JSON, **(named or {})}
        return self.ask("POST", "/graphql", headers, body=json.dumps({"query": query}))

    @property
    def is_harmed(self) -> bool:
        """Whether a mutation was executed."""
        return "harm" in self.instance.event_log_storage.get_concurrency_keys()


@pytest.fixture(name="served", scope="module")
def served_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Without code to load: the webserver does not ask who launches what either."""
    folder, port = tmp_path_factory.mktemp("webserver"), s3.free_port()
    workspace = folder / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    with (
        dg.DagsterInstance.local_temp(str(folder)) as instance,
        compat.application(instance, workspace) as app,
    ):
        app.add_middleware(OwnOrigin, port=port)
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
            yield Served(port, instance)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(autouse=True)
def unharmed(served: Served) -> Iterator[None]:
    """A test of a refusal leaves no mutation behind."""
    yield
    assert not served.is_harmed


def test_pages_of_the_ui_and_programs_use_it_as_before(served: Served) -> None:
    fetched = {"Origin": "{own}", "Referer": "{own}/runs", "Sec-Fetch-Site": "same-origin"}
    typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
    program: dict[str, str] = {}
    for named in (fetched, program, {"Content-Type": "application/json; charset=utf-8"}):
        assert served.post(QUERY, named) == (200, f'{{"data":{{"version":"{dg.__version__}"}}}}')
    assert served.ask("GET", f"/graphql?query={quote(QUERY)}")[0] == 200
    for path in ("/", "/runs", "/graphql", f"/graphql?query={quote(HARM)}&q", "/assets/notebook"):
        expected = 403 if "mutation" in path else 200
        assert served.ask("GET", path, typed)[0] == expected
    assert served.ask("HEAD", "/", typed)[0] == 200
    name, harmed = {"Host": "LOCALHOST:{port}", "Origin": "{own}"}, served.post(HARM, fetched)
    assert served.post(QUERY, name)[0] == 200
    assert harmed[0] == 200
    assert served.is_harmed
    served.instance.event_log_storage.delete_concurrency_limit("harm")


@pytest.mark.parametrize("sent", HEADERS.values(), ids=HEADERS)
def test_another_origin_is_refused(sent: Mapping[str, str], served: Served) -> None:
    assert served.post(HARM, sent)[0] == 403
    assert served.post(QUERY, sent)[0] == 403
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        assert served.ask(method, f"/graphql?query={quote(HARM)}", sent)[0] == 403
    for path in PATHS:
        assert served.ask("GET", path, sent)[0] == 403, path
        body = {"method": "POST", "path": path, "named": {**sent, "Content-Type": JSON}}
        assert served.ask(**body, body="{{}}")[0] == 403, path


@pytest.mark.parametrize("name", ["Host", "Origin", "Content-Type", "Sec-Fetch-Site", "Referer"])
@pytest.mark.parametrize("first", ["own", "foreign"])
def test_a_header_that_is_there_twice_is_refused(name: str, first: str, served: Served) -> None:
    own = {
        "Host": f"localhost:{served.port}",
        "Origin": served.own,
        "Referer": f"{served.own}/",
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": JSON,
    }
    foreign = {
        "Host": "evil.example",
        "Origin": "https://evil.example",
        "Referer": "https://evil.example/",
        "Sec-Fetch-Site": "cross-site",
        "Content-Type": "text/plain",
    }
    twice = [(name, own[name]), (name, foreign[name])]
    rest = [(other, value) for other, value in own.items() if other != name]
    headers = [*rest, *(twice if first == "own" else reversed(twice))]
    assert served.send("POST", "/graphql", headers, json.dumps({"query": HARM}))[0] in {400, 403}


def test_a_request_without_a_host_is_refused(served: Served) -> None:
    assert served.send("GET", "/server_info", [])[0] in {400, 403}


@pytest.mark.parametrize("kind", TYPES)
def test_a_body_that_browsers_send_unasked_is_refused(kind: str | None, served: Served) -> None:
    named = {} if kind is None else {"Content-Type": kind}
    form = f"/graphql?query={quote(HARM)}"
    for path, body in (("/graphql", json.dumps({"query": HARM})), ("/graphql", HARM), (form, "")):
        assert served.ask("POST", path, named, body=body)[0] == 403
    for path in PATHS:
        assert served.ask("POST", path, named)[0] == 403, path


@pytest.mark.parametrize(
    "query",
    [
        HARM,
        HARM.replace("mutation", "mutation M") + " query Q { version }",
        "query Q { version } " + HARM.replace("mutation", "mutation M"),
        "# query { version }\n,,," + HARM,
        "\ufeff" + HARM,
        "subscription { locationStateChangeEvents { __typename } }",
    ],
)
@pytest.mark.parametrize(
    "address",
    [
        "/graphql?query={}&operationName=M",
        "/graphql?query=%7Bversion%7D&query={}&operationName=M",
        "/graphql?query={}&query=%7Bversion%7D",
        "/graphql?operationName=M&%71uery={}",
        "/%67raphql?query={}&operationName=M",
        "/graphql/?query={}",
        "//graphql?query={}",
        "/graphql;a?query={}",
    ],
)
def test_no_get_changes_anything(address: str, query: str, served: Served) -> None:
    """Whoever asks: a redirection from an address that the user typed comes as the user's own."""
    for named in ({}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}):
        for method in ("GET", "HEAD"):
            assert served.ask(method, address.format(quote(query)), named)[0] == 403


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "FOO"])
def test_other_methods_are_refused(method: str, served: Served) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Content-Type": JSON}
    for path in PATHS:
        status, _ = served.ask(method, path, asked, body=json.dumps({"query": HARM}))
        assert status in {400, 403}, path


@pytest.mark.parametrize("path", ["/notebook", "/dagit/notebook", "/%6eotebook"])
def test_a_notebook_of_the_disk_is_not_part_of_the_ui(path: str, served: Served) -> None:
    """It could hold scripts, which would have the rights of the UI."""
    status, said = served.ask("GET", f"{path}?path=/tmp/a.ipynb&repoLocName=a")
    assert (status, "notebooks" in said) == (403, True)


def test_no_other_page_frames_it(served: Served) -> None:
    connection = http.client.HTTPConnection("localhost", served.port)
    connection.request("GET", "/")
    assert connection.getresponse().headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]
    connection.close()


def test_a_refusal_says_what_was_found_and_what_to_do(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    status, said = served.ask("GET", "/", {"Sec-Fetch-Site": "cross-site"})
    assert (status, "'cross-site'" in said, f"Type the address {served.own}" in said) == (
        *(403, True, True),
    )
    assert said.removeprefix("Refused: ").rstrip(".\n") in caplog.text


def test_a_websocket_is_for_pages_of_the_ui(served: Served) -> None:
    assert _handshake(served, {"Origin": "{own}", "Sec-Fetch-Site": "same-origin"}) == 101
    assert _handshake(served, {}) == 403
    for sent in HEADERS.values():
        assert _handshake(served, sent) == 403, sent
        assert _handshake(served, {"Origin": "{own}", **sent}) == 403, sent


def _handshake(served: Served, named: Mapping[str, str]) -> int:
    asked = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "graphql-ws",
    }
    return served.ask("GET", "/graphql", {**asked, **named})[0]
