"""Bucket clients stay where they were checked: host, region, TLS, owner; and no secret is shown."""

import contextlib
import re
import ssl
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import obstore
import pyarrow as pa
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from deltalake import DeltaTable, write_deltalake
from obstore.exceptions import BaseError
from obstore.store import S3Store

from fruits_assets.assets.places import Source
from fruits_assets.core.errors import (
    EndpointError,
    FruitsError,
    LakeError,
    S3Error,
    without_secrets,
)
from fruits_assets.infrastructure.stack import Stack
from fruits_assets.lake.lake import Lake
from fruits_assets.settings import Settings
from fruits_assets.sources.places import photos_at
from fruits_assets.spark import emr_check
from fruits_assets.spark.aws import emr_client
from fruits_assets.storage import clients, s3
from fruits_assets.storage.base import Folder
from fruits_assets.storage.endpoints import check_endpoint, is_at, of_s3
from fruits_assets.storage.places import folder_at, folder_from
from fruits_assets.storage.region import EU_REGIONS
from fruits_assets.storage.s3 import S3Storage
from fruits_assets_tests.places import Bucket
from fruits_assets_tests.s3 import (
    ACCESS_KEY,
    REGION,
    SECRET_KEY,
    Answer,
    Gate,
    Request,
    Server,
    always,
    by,
    forget,
    in_region,
    refusal,
    used,
)

OWNER = "111122223333"
PASSWORD = "wJalr/XUtn+FEMI7MDENG"  # noqa: S105 - opens nothing
AWS = "https://s3.eu-west-3.amazonaws.com"


@pytest.fixture(scope="module")
def server(_versitygw: Server) -> Server:
    """The faster server will do: what is tested is where requests go."""
    return _versitygw


@pytest.fixture(scope="module")
def _elsewhere() -> Iterator[Gate]:
    with Gate(always(Answer(200, b"of another"))) as gate:
        yield gate


@pytest.fixture
def elsewhere(_elsewhere: Gate) -> Gate:
    """A server that no request may ever reach."""
    _elsewhere.requests.clear()
    return _elsewhere


def _opened(owner: str | None = None, region: str = REGION) -> Folder:
    return folder_at("s3://bucket/prefix", region=region, bucket_owner=owner)


def _uses(storage: S3Storage, uri: str) -> list[Callable[[], object]]:
    """Everything that the pipeline ever asks of a bucket by boto3 and obstore."""

    def create() -> None:
        with storage.create(uri) as file:
            file.write(b"content")

    return [
        lambda: storage.read(uri),
        lambda: storage.open(uri),
        lambda: storage.write(uri, b"content"),
        create,
        lambda: storage.swap(uri, b"new", expected=None),
        lambda: storage.files(uri),
        lambda: storage.children(uri),
        lambda: storage.remove([uri]),
        lambda: storage.remove([f"{uri}/{number}" for number in range(s3.FEW)]),
        lambda: list(storage.everything(uri)),
        lambda: photos_at(Folder(storage, uri)).list(recursive=True),
        lambda: photos_at(Folder(storage, uri)).read({"path": "1.jpg", "etag": '"1"', "bytes": 7}),
    ]


# Which endpoints are accepted


@pytest.mark.parametrize("region", EU_REGIONS)
def test_the_hosts_of_the_region_are_accepted(region: str) -> None:
    for url in of_s3(region):
        for given in (url, f"{url}/", f"{url}:443", url.upper().replace("HTTPS", "https")):
            assert check_endpoint(given, *of_s3(region), what="s3")
    assert is_at(f"https://bucket.s3.{region}.amazonaws.com/key?x", of_s3(region)[0])


LOCAL = ("http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000", "https://127.9.8.7")


@pytest.mark.parametrize("url", LOCAL)
def test_a_store_on_this_machine_is_accepted(url: str) -> None:
    assert check_endpoint(url, *of_s3(REGION), what="s3") == url


WRONG = (
    # AWS, but not S3 of the region over TLS
    "https://s3.amazonaws.com",
    "https://s3.us-east-1.amazonaws.com",
    "https://s3.eu-west-2.amazonaws.com",
    "https://s3.eu-west-1.amazonaws.com",
    "https://s3-eu-west-3.amazonaws.com",
    "https://s3-fips.eu-west-3.amazonaws.com",
    "https://s3-accelerate.amazonaws.com",
    "https://s3.cn-north-1.amazonaws.com.cn",
    "https://s3.dualstack.us-east-1.amazonaws.com",
    "https://ec2-3-4-5-6.eu-west-3.compute.amazonaws.com",
    "https://abc.execute-api.eu-west-3.amazonaws.com",
    "http://s3.eu-west-3.amazonaws.com",
    "https://s3.eu-west-3.amazonaws.com:8443",
    "https://s3.eu-west-3.amazonaws.com.",
    # Hosts that only look like it
    "https://evilamazonaws.com",
    "https://s3.eu-west-3.evilamazonaws.com",
    "https://amazonaws.com.evil",
    "https://s3.eu-west-3.amazonaws.com.evil.example",
    "https://s3.eu-west-3.amazonaws.com@evil.example",
    "https://evil.example/s3.eu-west-3.amazonaws.com",
    "https://evil.example?s3.eu-west-3.amazonaws.com",
    "https://evil.example#.s3.eu-west-3.amazonaws.com",
    "https://evil.example\\.s3.eu-west-3.amazonaws.com",
    "https://s3.eu-west-3.amazonaws.com\\@evil.example",
    "https://s3.eu-west-3.amazonaws.com/elsewhere",
    "https://s3\uff0eeu-west-3.amazonaws.com",
    # Hosts that only look like this machine
    "http://127.0.0.1.evil.example:9000",
    "http://localhost.evil.example:9000",
    "http://127.0.0.1@evil.example",
    "http://127.0.0.1:9000\\@evil.example",
    "http://0.0.0.0:9000",
    "http://10.0.0.1:9000",
    "http://169.254.169.254",
    "http://192.168.1.2:9000",
    "http://2130706433:9000",
    "https://minio.example:9000",
    # No URL of a server
    "ftp://127.0.0.1",
    "file:///etc",
    "s3.eu-west-3.amazonaws.com",
    "http://127.0.0.1:99999",
    "http://[::1",
    "",
)


@pytest.mark.parametrize("url", WRONG)
def test_any_other_endpoint_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match=r"Nothing was sent\. Unset AWS_ENDPOINT_URL"):
        check_endpoint(url, *of_s3(REGION), what="s3")
    assert not is_at(url, AWS) or url == f"{AWS}/elsewhere"


def _by_variable(url: str, patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("AWS_ENDPOINT_URL", url)


def _by_file(text: str) -> Callable[[str, pytest.MonkeyPatch, Path], None]:
    def write(url: str, patch: pytest.MonkeyPatch, folder: Path) -> None:
        patch.delenv("AWS_ENDPOINT_URL")
        (folder / "config").write_text(text.format(url=url))
        patch.setenv("AWS_CONFIG_FILE", str(folder / "config"))

    return write


WAYS = {
    "variable": _by_variable,
    "profile": _by_file("[default]\nendpoint_url = {url}\n"),
    "service": _by_file("[default]\nservices = x\n[services x]\ns3 =\n  endpoint_url = {url}\n"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "url",
    [
        "https://s3.us-east-1.amazonaws.com",
        "http://s3.eu-west-3.amazonaws.com",
        "https://evilamazonaws.com",
        f"https://me:{PASSWORD}@s3.eu-west-3.amazonaws.com",
        f"http://me:{PASSWORD}@127.0.0.1:9000",
        f"me:{PASSWORD}@nowhere",
    ],
)
def test_a_wrong_endpoint_is_refused_wherever_it_is_configured(
    tmp_path: Path, way: Callable[[str, pytest.MonkeyPatch, Path], None], url: str
) -> None:
    with used("http://127.0.0.1:9"), pytest.MonkeyPatch.context() as patch:
        way(url, patch, tmp_path)
        with pytest.raises(EndpointError) as told:
            _opened()
    everything = "".join(traceback.format_exception(told.value))
    assert PASSWORD not in everything
    assert "AWS_ENDPOINT_URL" in str(told.value)


def test_what_the_config_file_names_on_this_machine_is_used(stub: Gate, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        WAYS["service"](stub.endpoint, patch, tmp_path)
        s3._client.cache_clear()
        s3._verified_region.cache_clear()
        assert _opened().uri == "s3://bucket/prefix"
    assert [request.method for request in stub.requests] == ["HEAD"]


def test_aws_is_asked_where_configured_endpoints_are_ignored(
    stub: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert clients.configured_endpoint("s3", REGION) == AWS


OTHERS: dict[str, Callable[[], object]] = {
    "emr": lambda: emr_client(REGION),
    "cloudformation": lambda: Stack("fruits", REGION),
    "checks": lambda: emr_check.aws(REGION)("sts"),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_other_services_are_asked_at_aws_only(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]
) -> None:
    for url in ("https://evilamazonaws.com", AWS, f"http://me:{PASSWORD}@10.0.0.1"):
        with used(url), pytest.raises(EndpointError) as told:
            make()
        assert PASSWORD not in "".join(traceback.format_exception(told.value))


def test_credentials_are_asked_for_at_aws_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[default]\nrole_arn = arn:aws:iam::111122223333:role/x\nsource_profile = keys\n"
        f"[profile keys]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://sts.example")
    asked = clients.session(REGION).get_credentials()
    with pytest.raises(EndpointError, match="not AWS's sts"):
        asked.get_frozen_credentials()


# What happens after the check


STATUSES = (301, 302, 303, 307, 308)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("region", [None, "us-east-1", "eu-west-1"])
def test_no_redirect_is_followed(
    stub: Gate, elsewhere: Gate, status: int, region: str | None
) -> None:
    storage = _opened().storage
    assert isinstance(storage, S3Storage)
    stub.requests.clear()
    body = b"<Error><Code>PermanentRedirect</Code><Endpoint>%s</Endpoint></Error>"
    stub.rule = by(
        lambda it: Answer(
            status,
            body % elsewhere.endpoint[len("http://") :].encode(),
            {**in_region(region).headers, "Location": f"{elsewhere.endpoint}/{it.bucket}/{it.key}"},
        )
    )
    told = (
        "cannot be reached" if status == 303 else "lies in another region than FRUITS_REGION says"
    )
    for use in _uses(storage, "s3://bucket/prefix/file"):
        with pytest.raises(S3Error, match=told):
            use()
    assert elsewhere.requests == []
    assert {_signed_for(request) for request in stub.requests} <= {REGION, None}


def _signed_for(request: Request) -> str | None:
    found = re.search(r"Credential=[^/]+/\d+/([^/]+)", request.headers.get("authorization", ""))
    return found[1] if found else None


@pytest.mark.parametrize(
    "code", ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException"]
)
def test_no_request_is_signed_for_a_region_that_an_answer_names(stub: Gate, code: str) -> None:
    storage = _opened().storage
    stub.rule = always(
        Answer(400, f"<Error><Code>{code}</Code><Region>us-east-1</Region></Error>".encode())
    )
    with pytest.raises(S3Error, match="lies in another region"):
        storage.write("s3://bucket/prefix/file", b"content")
    assert {_signed_for(request) for request in stub.requests} == {REGION}


def test_a_region_that_botocore_follows_after_all_is_refused_before_sending(
    stub: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should a later version not mind that it has been redirected already."""
    monkeypatch.setattr(clients, "_stay", lambda **_: None)
    s3._client.cache_clear()
    storage = _opened().storage
    stub.rule = always(Answer(301, headers=in_region("us-east-1").headers))
    with pytest.raises(EndpointError, match="was not sent"):
        storage.write("s3://bucket/prefix/file", b"content")
    s3._client.cache_clear()
    assert {_signed_for(request) for request in stub.requests} == {REGION}


def _asked_of_aws(
    answer: Callable[[str], tuple[int, Mapping[str, str]]],
) -> tuple[Any, list[str]]:
    """A client of AWS whose requests are answered here, and the URLs that it sends them to."""
    client = clients.client_at(AWS, "s3", REGION, Config(retries={"total_max_attempts": 3}))
    urls: list[str] = []

    def send(request: Any, **_: Any) -> AWSResponse:
        urls.append(request.url)
        status, headers = answer(request.url)
        return AWSResponse(request.url, status, headers, _Body())

    client.meta.events.register_last("before-send", send)
    return client, urls


class _Body:
    def stream(self) -> Iterator[bytes]:
        yield b""


def test_aws_is_asked_at_the_hosts_of_the_region_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[default]\nuse_dualstack_endpoint = true\nuse_fips_endpoint = true\n"
        "s3 =\n  use_accelerate_endpoint = true\n  use_dualstack_endpoint = true\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://evil.example")
    client, urls = _asked_of_aws(lambda _: (301, in_region("us-east-1").headers))
    calls: list[Callable[[], Any]] = [
        lambda: client.put_object(Bucket="bucket", Key="key", Body=b"content"),
        lambda: client.put_object(Bucket="b.with.dots", Key="key", Body=b"content"),
        lambda: client.head_bucket(Bucket="bucket"),
        lambda: client.list_objects_v2(Bucket="bucket"),
    ]
    for call in calls:
        with contextlib.suppress(Exception):
            call()
    assert len(urls) == len(calls)
    hosts = {url.split("/")[2] for url in urls}
    assert hosts == {"bucket.s3.eu-west-3.amazonaws.com", "s3.eu-west-3.amazonaws.com"}
    arn = "arn:aws:s3:us-east-1:111122223333:accesspoint/x"
    with pytest.raises((EndpointError, BotoCoreError)):
        client.put_object(Bucket=arn, Key="key", Body=b"content")
    assert len(urls) == len(calls)


def test_an_arn_is_no_bucket(stub: Gate) -> None:
    for name in ("arn:aws:s3:us-east-1:111122223333:accesspoint/x", "a", "UPPER", "a..b", "b" * 64):
        with pytest.raises(S3Error, match=r"Expected s3://bucket/prefix"):
            folder_at(f"s3://{name}/prefix", region=REGION)
    assert stub.requests == []


def test_obstore_and_delta_rs_reach_one_host_of_aws_only(elsewhere: Gate) -> None:
    """As if a redirect had brought them to another host."""
    proxy, excludes = s3._only("https://bucket.s3.eu-west-3.amazonaws.com")
    assert excludes == "bucket.s3.eu-west-3.amazonaws.com"
    store = S3Store(
        "bucket",
        region=REGION,
        endpoint=elsewhere.endpoint,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "proxy_url": proxy, "proxy_excludes": excludes},
        retry_config={"max_retries": 0},  # pyright: ignore[reportArgumentType]
    )
    with pytest.raises(BaseError):
        obstore.get(store, "key")
    assert elsewhere.requests == []


def _table(gated: Bucket) -> Any:
    from fruits_assets_tests.lake.versions import publish

    return publish


def test_delta_rs_follows_no_redirect(
    gated: Bucket, gate: Gate, elsewhere: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)

    storage = gated.opened.storage
    gate.rule = by(
        lambda it: Answer(307, headers={"Location": f"{elsewhere.endpoint}/{it.bucket}/{it.key}"})
    )
    with pytest.raises(OSError, match="redirect"):
        DeltaTable(gated.uri("table"), storage_options=storage.delta_options())
    assert elsewhere.requests == []


LEADS = (
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_S3_ENDPOINT",
    "AWS_PROXY_URL",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
)


@pytest.mark.parametrize("name", LEADS)
def test_what_the_environment_says_after_the_check_is_not_followed(
    gated: Bucket,
    gate: Gate,
    elsewhere: Gate,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Nor what boto3 does not know, and obstore or delta-rs do."""
    folder = gated.opened
    monkeypatch.setenv(name, elsewhere.endpoint)
    for more in ("AWS_ALLOW_HTTP", "AWS_SKIP_SIGNATURE", "AWS_ALLOW_INVALID_CERTIFICATES"):
        monkeypatch.setenv(more, "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for function in (s3._client, s3._store):
        function.cache_clear()
    folder.write("file", b"content")
    assert folder.read("file") == b"content"
    write_deltalake(
        gated.uri("table"), pa.table({"a": [1]}), storage_options=folder.storage.delta_options()
    )
    for function in (s3._client, s3._store):
        function.cache_clear()
    assert elsewhere.requests == []
    assert {_signed_for(request) for request in gate.requests} == {REGION}


def test_an_endpoint_that_only_delta_rs_follows_is_refused_at_any_time(
    gated: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = gated.opened.storage
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", AWS)
    with pytest.raises(EndpointError, match="AWS_ENDPOINT_URL_S3 is set"):
        storage.delta_options()


def test_a_proxy_is_used_for_aws_by_clients_that_stay_at_their_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = s3.Bucket("bucket", REGION)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    s3._store.cache_clear()
    assert s3._store(bucket) is None
    assert S3Storage(bucket).delta_options()["proxy_url"] == "http://proxy.example:3128"
    monkeypatch.setenv("NO_PROXY", ".amazonaws.com")
    s3._store.cache_clear()
    assert s3._store(bucket) is not None
    assert S3Storage(bucket).delta_options()["proxy_url"] == s3.NOWHERE
    s3._store.cache_clear()


def test_a_password_of_a_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{quote(PASSWORD, safe='')}@127.0.0.1:1")
    forget()
    with pytest.raises(S3Error, match="S3 cannot be reached") as told:
        _opened()
    lake = Lake(Folder(S3Storage(s3.Bucket("bucket", REGION)), "s3://bucket/lake"))
    monkeypatch.setattr("fruits_assets.lake.table.OPEN_ATTEMPTS", 0)
    with pytest.raises(LakeError, match="its log") as of_delta:
        lake.table("raw")._delta(0)
    forget()
    for error in (told.value, of_delta.value):
        everything = "".join(traceback.format_exception(error))
        assert not [it for it in PASSWORD.split("/") if it in everything]


@pytest.fixture
def unsigned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gate]:
    """A server whose certificate nobody has signed."""
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", "key.pem", "-out", "certificate.pem", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    gate = Gate(always(in_region(REGION)))
    gate._server.socket = context.wrap_socket(gate._server.socket, server_side=True)
    gate.endpoint = gate.endpoint.replace("http", "https")
    with gate:
        yield gate


def test_no_variable_turns_the_verification_of_certificates_off(
    unsigned: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    for name in ("AWS_ALLOW_INVALID_CERTIFICATES", "AWS_ALLOW_HTTP", "ALLOW_INVALID_CERTIFICATES"):
        monkeypatch.setenv(name, "true")
    storage = S3Storage(s3.Bucket("bucket", REGION, endpoint=unsigned.endpoint))
    uri = "s3://bucket/file"
    with used(unsigned.endpoint):
        for use in (lambda: storage.read(uri), lambda: storage.write(uri, b""), _opened):
            with pytest.raises(S3Error, match="S3 cannot be reached"):
                use()
    with pytest.raises(OSError, match="error sending request"):
        DeltaTable("s3://bucket/table", storage_options=storage.delta_options())
    assert unsigned.requests == []


# Owner


@pytest.mark.parametrize("owner", ["123", "1111222233334", "1111-2222-3333", "me", "111122223333 "])
def test_what_is_no_account_is_refused(
    stub: Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, owner: str
) -> None:
    with pytest.raises(S3Error, match="FRUITS_BUCKET_OWNER to the 12 digits"):
        _opened(owner)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITS_BUCKET_OWNER", owner)
    with pytest.raises(S3Error, match="FRUITS_BUCKET_OWNER to the 12 digits"):
        Settings()
    assert stub.requests == []


def test_every_request_names_the_owner(stub: Gate) -> None:
    storage = _opened(OWNER).storage
    assert isinstance(storage, S3Storage)
    stub.rule = always(refusal(403, "AccessDenied", "Access Denied"))
    for use in _uses(storage, "s3://bucket/prefix/file"):
        with pytest.raises(S3Error, match=r"is denied .*FRUITS_BUCKET_OWNER"):
            use()
    assert {request.of_obstore for request in stub.requests} == {False, True}
    assert {request.method for request in stub.requests} == {"HEAD", "GET", "PUT"}
    _name_owner(stub.requests)


def _name_owner(requests: Sequence[Request]) -> None:
    """S3 refuses headers of its own that are not signed."""
    for request in requests:
        assert request.headers.get("x-amz-expected-bucket-owner") == OWNER, request
        signed = re.search("SignedHeaders=([^,]+)", request.headers["authorization"])
        assert signed
        assert "x-amz-expected-bucket-owner" in signed[1].split(";")


def test_every_part_of_a_large_file_names_the_owner(stub: Gate) -> None:
    def answer(request: Request) -> Answer:
        if "uploads" in request.query:
            name = "InitiateMultipartUploadResult"
            return Answer(200, f"<{name}><UploadId>1</UploadId></{name}>".encode())
        return Answer(200, b"<CompleteMultipartUploadResult/>", {"ETag": '"1"'})

    storage = _opened(OWNER).storage
    stub.rule = by(answer)
    with storage.create("s3://bucket/prefix/large") as file:
        file.write(bytes(17 * 2**20))
    assert {request.method for request in stub.requests} == {"HEAD", "POST", "PUT"}
    _name_owner(stub.requests)


def test_a_copy_names_the_owner_of_its_source() -> None:
    """None is made today; the client adds it whatever is asked."""
    client, _ = _asked_of_aws(lambda _: (200, {}))
    seen: list[dict[str, Any]] = []
    client.meta.events.register("before-parameter-build.s3", clients._expects(OWNER))
    client.meta.events.register_last(
        "before-parameter-build.s3", lambda params, **_: seen.append(dict(params))
    )
    client.upload_part_copy(
        Bucket="bucket", Key="key", CopySource="bucket/other", UploadId="1", PartNumber=1
    )
    assert {seen[0][name] for name in clients.OWNERS} == {OWNER}


def test_a_bucket_of_another_account_is_refused_before_it_is_used(stub: Gate) -> None:
    stub.rule = by(
        lambda it: (
            in_region(REGION)
            if it.headers.get("x-amz-expected-bucket-owner") == OWNER
            else refusal(403, "AccessDenied", "Access Denied")
        )
    )
    assert _opened(OWNER).uri == "s3://bucket/prefix"
    with pytest.raises(S3Error, match="is denied"):
        _opened("999999999999")
    with pytest.raises(S3Error, match="is denied"):
        Lake.at("s3://bucket/lake", region=REGION, bucket_owner="999999999999")
    photos = Source(place="s3://bucket/photos", region=REGION, bucket_owner=OWNER).photos()
    assert photos.root == "s3://bucket/photos"


def test_the_owner_travels_with_a_folder(stub: Gate) -> None:
    folder = folder_from(_opened(OWNER).to_dict())
    assert isinstance(folder.storage, S3Storage)
    assert folder.storage.bucket.owner == OWNER


# Secrets


SECRETS = {
    f"s3://{ACCESS_KEY}:{PASSWORD}@bucket/key": "s3://***@bucket/key",
    f"http://me:{PASSWORD}@proxy:3128 refuses": "http://***@proxy:3128 refuses",
    "https://me@host/x": "https://***@host/x",
    "Failed to connect to proxy me:pass@proxy.example:3128": (
        "Failed to connect to proxy ***@proxy.example:3128"
    ),
    f"the key {ACCESS_KEY} is unknown": "the key *** is unknown",
    "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&X-Amz-Signature=0af&x=1": (
        "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&***&x=1"
    ),
    "k?x-amz-security-token=IQoJb3%2F&X-Amz-Credential=AKIA%2F2026": "k?***&***",
    "k?AWSAccessKeyId=x&Signature=y&Expires=1": "k?***&***&Expires=1",
    "Authorization: AWS4-HMAC-SHA256 Credential=A/1/r/s3, SignedHeaders=h, Signature=0af": "***",
    f"aws_secret_access_key = {PASSWORD}": "***",
    f'{{"SecretAccessKey": "{PASSWORD}", "x": 1}}': '{"***", "x": 1}',
    f"<SessionToken>{PASSWORD}</SessionToken>": "<***</SessionToken>",
    f"password={PASSWORD}&user=me": "***&user=me",
    f"signed with {SECRET_KEY}.": "signed with ***.",
}


@pytest.mark.parametrize(("text", "shown"), SECRETS.items())
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    hidden = without_secrets(text)
    assert hidden.replace("******", "***") == shown
    assert PASSWORD not in hidden
    assert str(FruitsError(text)) == hidden


HARMLESS = (
    "s3://bucket/Training/Apple/me@home.jpg cannot be read",
    "/home/me/photos/12:30@farm.jpg: it is empty",
    "https://s3.eu-west-3.amazonaws.com/bucket?list-type=2&prefix=a",
    "See that the access key, the secret key and the session token belong together.",
    "arn:aws:kms:eu-west-3:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "write to me@example.org: at once",
    "part-0123456789abcdef-0-320-0123456789abcdef.parquet",
)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize("name", ["FRUITS_LAKE", "FRUITS_SOURCE", "FRUITS_WEIGHTS"])
@pytest.mark.parametrize(
    "uri",
    [
        f"s3://{ACCESS_KEY}:{PASSWORD}@bucket/prefix",
        f"s3://me:{PASSWORD}/bucket",
        f"s3://{PASSWORD.replace('/', '')}@bucket/prefix",
    ],
)
def test_a_password_in_a_uri_is_refused_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITS_REGION", REGION)
    monkeypatch.setenv(name, uri)
    for action in (Settings, lambda: folder_at(uri, region=REGION)):
        with pytest.raises(S3Error, match="not shown") as told:
            action()
        everything = "".join(traceback.format_exception(told.value))
        assert not [it for it in (*PASSWORD.split("/"), ACCESS_KEY) if it in everything]
