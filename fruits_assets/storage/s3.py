"""Buckets: of AWS, or of a store on this machine that speaks S3's protocol (`AWS_ENDPOINT_URL`).

boto3 does what happens a few times in a run: it writes, lists, deletes and says precisely what is
wrong. Reading happens once for every photo; obstore does it, at a ninth of boto3's CPU time per
request (docs/performance.md), and whatever it cannot read is read by boto3 after all.
Credentials are those of boto3's default chain for both; none is ever kept or shown.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

import obstore
import pyarrow as pa
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    NoCredentialsError,
)
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError as ObstoreError
from obstore.store import S3Store
from s3transfer.utils import S3_RETRYABLE_DOWNLOAD_ERRORS

from fruits_assets.core.errors import (
    ConflictError,
    EndpointError,
    LakeError,
    RegionError,
    S3Error,
)
from fruits_assets.storage import clients
from fruits_assets.storage.base import Found, Storage, Stored, join
from fruits_assets.storage.endpoints import is_loopback, of_s3, split
from fruits_assets.storage.s3_errors import sentence

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from obstore import GetOptions, GetResult

ATTEMPTS = 8
"""Of a request, with exponential backoff between them: about half a minute in all."""
CONNECT_SECONDS, READ_SECONDS = 10, 60
IN_FLIGHT = 64
"""Requests under way at once, at most, per process."""
TAIL_BYTES = 2**16
"""Fetched with the size of a file: holds the footer of a Parquet file."""
SPOOL_BYTES = 2**25
"""A streamed file is kept in memory up to here, and on disk beyond."""
FEW = 20
"""Objects to remove, below which the versions of each are asked for, not of the whole folder."""
DELETE_BATCH = 1000
"""Keys in one request, S3's limit."""
UNEXPLAINED = frozenset({"400", "403"})
"""An answer to HEAD has no body that could say why; the same refusal of a listing, of nothing, has.
"""
OBSTORE_ERRORS = (ObstoreError, BotoCoreError, OSError, ValueError)
"""Of obstore, and of the credentials that boto3 looks up for it."""
BROKEN_OFF = (*S3_RETRYABLE_DOWNLOAD_ERRORS, HTTPClientError, FlexibleChecksumError)
"""An answer began, but its body is not all there."""
IDENTITY = ("Key", "VersionId")
"""Of an object, or of a version of one."""
OVERRIDE = "AWS_ENDPOINT_URL_S3"
"""Environment variable that delta-rs follows whatever else it is told."""
NOWHERE = "http://127.0.0.1:0"
"""Nothing can listen there."""
OWNER_HEADER = "x-amz-expected-bucket-owner"
BUSY = frozenset({"SlowDown", "InternalError", "ServiceUnavailable"})
"""One object of many was not deleted for a reason that passes."""
GONE = frozenset({"NoSuchKey", "404", "NotFound"})
EMPTY = frozenset({"InvalidRange", "416"})
FORBIDDEN = frozenset({"AccessDenied", "403", "Forbidden"})
CHANGED = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})

REPLACED = "it has been replaced since it was listed; run again"


@dataclass(frozen=True)
class Bucket:
    """A bucket that has been seen to lie in the EU, and how to reach it.

    Attributes:
        name: of the bucket.
        region: that it lies in.
        kms_key: id or ARN of the key that everything written is encrypted with; None for S3's own.
        endpoint: URL that it is reached at, where that is not the usual one of its region.
        owner: AWS account that must own it; None where that is not known.
        requester_pays: whether requests say that this account pays for them, not the owner.
    """

    name: str
    region: str
    kms_key: str | None = None
    endpoint: str | None = None
    owner: str | None = None
    requester_pays: bool = False

    @property
    def url(self) -> str:
        """URL of the endpoint that all requests go to."""
        return self.endpoint or of_s3(self.region)[0]

    @property
    def is_local(self) -> bool:
        """Whether it is held by a store on this machine, and not by AWS."""
        return is_loopback(self.url)

    @property
    def host(self) -> str:
        """URL whose host is the bucket's own, where it is AWS's."""
        parts = urlsplit(self.url)
        return self.url if self.is_local else f"{parts.scheme}://{self.name}.{parts.netloc}"


def verified(
    name: str,
    *,
    region: str,
    kms_key: str | None,
    owner: str | None = None,
    requester_pays: bool = False,
) -> Bucket:
    """The bucket, once it has said that it lies in a region.

    Raises:
        RegionError: it says another one, or nothing.
        S3Error: it cannot be asked, or another account owns it than is expected.
    """
    _check_override()
    with told(name):
        endpoint = _client(region, None).meta.endpoint_url
    found = _verified_region(name, region, endpoint, owner, requester_pays=requester_pays)
    if found != region:
        where = f"lies in {found!r}" if found else "does not say in which region it lies"
        raise RegionError(
            f"the bucket {name} {where}, but FRUITS_REGION is {region!r}: nothing was read or "
            "written. Set FRUITS_REGION to the bucket's own region if that is in the EU, or use "
            "a bucket that is."
        )
    usual = endpoint == of_s3(region)[0]
    return Bucket(name, region, kms_key, None if usual else endpoint, owner, requester_pays)


def _check_override() -> None:
    if OVERRIDE in os.environ:
        raise EndpointError(
            f"{OVERRIDE} is set: some libraries would follow it to another place than the one that "
            "was checked. Unset it; AWS_ENDPOINT_URL is followed by all of them alike."
        )


@lru_cache(maxsize=64)
def _verified_region(
    name: str,
    region: str,
    endpoint: str,
    owner: str | None = None,
    *,
    requester_pays: bool = False,
) -> str | None:
    """Buckets do not move: each is asked once."""
    return _region_of(_client(region, endpoint, owner, requester_pays=requester_pays), name)


def _region_of(client: Any, name: str) -> str | None:
    with told(name):
        try:
            return client.head_bucket(Bucket=name).get("BucketRegion")
        except ClientError as error:
            # A refusal says where the bucket lies, too, and that matters more.
            headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
            found = headers.get("x-amz-bucket-region")
            if found and found != client.meta.region_name:
                return found
            if error.response["Error"]["Code"] in UNEXPLAINED:
                client.list_objects_v2(Bucket=name, MaxKeys=0)
            raise


@contextlib.contextmanager
def told(bucket: str) -> Iterator[None]:
    """Turns an error of AWS's library into a sentence for people."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise S3Error(sentence(error, bucket=bucket)) from error


@lru_cache(maxsize=8)
def _client(
    region: str,
    endpoint: str | None,
    owner: str | None = None,
    *,
    requester_pays: bool = False,
) -> Any:
    """A client for an endpoint that was checked, or for the one that is configured."""
    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=IN_FLIGHT,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
    )
    if endpoint is None:
        return clients.client("s3", region, config, owner=owner)
    return clients.client_at(
        endpoint, "s3", region, config, owner=owner, requester_pays=requester_pays
    )


def client_of(bucket: Bucket) -> Any:
    """boto3's client for a bucket; safe to share between threads. Raises S3Error."""
    with told(bucket.name):
        pays = bucket.requester_pays
        return _client(bucket.region, bucket.url, bucket.owner, requester_pays=pays)


@lru_cache(maxsize=8)
def _session(region: str) -> Any:
    """Keeps credentials, which some providers are asked for over the network, until they expire."""
    return clients.session(region)


@lru_cache(maxsize=8)
def _store(bucket: Bucket) -> S3Store | None:
    """Obstore's client for a bucket; None behind a proxy, where it could not be held to its host.

    It reads the environment by itself: whatever would lead it elsewhere is said here.
    """
    if clients.proxy_for(bucket.url):
        return None
    proxy, excludes = _only(bucket.host)
    return S3Store(
        bucket.name,
        region=bucket.region,
        endpoint=bucket.host,
        virtual_hosted_style_request=not bucket.is_local,
        skip_signature=False,
        s3_express=False,
        request_payer=bucket.requester_pays,
        credential_provider=Boto3CredentialProvider(
            _session(bucket.region), ttl=timedelta(minutes=5)
        ),
        client_options={
            "proxy_url": proxy,
            "proxy_excludes": excludes,
            "allow_http": bucket.is_local,  # AWS is only ever spoken to over TLS
            "allow_invalid_certificates": False,
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=READ_SECONDS),
            "default_headers": {OWNER_HEADER: bucket.owner} if bucket.owner else {},
        },
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
    )


def _only(url: str) -> tuple[str, str]:
    """A proxy, and the hosts that need none, by which obstore and delta-rs ask one host only.

    Both follow redirects, and no setting forbids it. But what goes to another host goes through a
    proxy, and there is none that leads anywhere: for AWS, it is a port that nothing listens on; for
    a store on this machine, where hosts are told apart by their ports, the store itself, which has
    to understand a request that is put to it as to a proxy (RFC 9112, 3.2.2).
    """
    parts = urlsplit(url)
    if parts.scheme == "http":
        return url, ""
    return NOWHERE, parts.hostname or ""


@dataclass(frozen=True)
class S3Storage(Storage):
    """Objects of one bucket; URIs are `s3://bucket/key`, folders are what keys begin with."""

    bucket: Bucket

    @property
    def _client(self) -> Any:
        return client_of(self.bucket)

    def open(self, uri: str) -> pa.NativeFile:  # noqa: D102 - see Storage
        return pa.PythonFile(_Object(self, split(uri)[1]), "r")

    def read(self, uri: str) -> bytes:  # noqa: D102 - see Storage
        return self.get_object(split(uri)[1])

    def get_object(
        self,
        key: str,
        *,
        start: int = 0,
        stop: int | None = None,
        etag: str | None = None,
        most: int | None = None,
    ) -> bytes:
        """The bytes of an object, or some of them.

        Args:
            key: of the object.
            start: first byte.
            stop: byte after the last; None for all.
            etag: only if the object still has this one.
            most: bytes that it may have; more are not read.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: it has another ETag or more bytes, or is in an archive that has to be restored
                first.
            S3Error: it cannot be read.
        """
        options: GetOptions = {"if_match": etag} if etag else {}
        if stop is not None:
            options["range"] = (start, stop)
        try:
            found = self._get_by_obstore(key, options)
            # Its length is as good as its word: no more of the body would be read.
            if found and (most is None or found.meta["size"] <= most):
                return bytes(found.bytes())
        except OBSTORE_ERRORS as error:
            if "<Code>NoSuchKey</Code>" in str(error):
                text = "there is no such object"
                raise FileNotFoundError(errno.ENOENT, text, key) from None
        ask = {"Range": f"bytes={start}-{stop - 1}"} if stop else {}
        with told(self.bucket.name):
            try:
                ask |= {"IfMatch": etag} if etag else {}
                content, _ = self._get_by_boto3(key, most, **ask)
            except ClientError as error:
                _raise_as_os_error(error, key)
                raise
        return content

    def _get_by_boto3(
        self, key: str, most: int | None = None, /, **options: str
    ) -> tuple[bytes, Mapping[str, Any]]:
        """The body of an answer, and all else. boto3 repeats requests, but not broken answers."""
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._client.get_object(**self._at(key), **options)
            try:
                return _body(answer["Body"], most, key), answer
            except BROKEN_OFF:
                if attempt == ATTEMPTS:
                    raise
                _pause(attempt)
        raise AssertionError

    def _get_by_obstore(self, key: str, options: GetOptions) -> GetResult | None:
        store = _store(self.bucket)
        if store is None or key != key.strip("/"):  # it would strip the key
            return None
        return obstore.get(store, key, options=options)

    def tail(self, key: str) -> tuple[bytes, int]:
        """The last `TAIL_BYTES` of an object, and its size. Raises as `get_object` does."""
        options: GetOptions = {"range": {"suffix": TAIL_BYTES}}
        with contextlib.suppress(*OBSTORE_ERRORS):
            if found := self._get_by_obstore(key, options):
                return bytes(found.bytes()), found.meta["size"]
        with told(self.bucket.name):
            try:
                content, answer = self._get_by_boto3(key, Range=f"bytes=-{TAIL_BYTES}")
            except ClientError as error:
                if error.response["Error"]["Code"] in EMPTY:
                    return b"", 0
                _raise_as_os_error(error, key)
                raise
        whole = answer.get("ContentRange", "").rpartition("/")[2]
        return content, int(whole or len(content))

    @contextlib.contextmanager
    def create(self, uri: str) -> Iterator[BinaryIO]:  # noqa: D102 - see Storage
        try:
            with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
                yield spool  # type: ignore[misc] - a binary file in all but name
                spool.seek(0)
                with told(self.bucket.name):
                    self._client.upload_fileobj(
                        spool, **self._at(split(uri)[1]), ExtraArgs=self.encryption
                    )
        except OSError as error:
            raise LakeError(
                f"{uri} cannot be written: {error.strerror or error}. It is collected in "
                f"{tempfile.gettempdir()} first: free space there, or point TMPDIR at another "
                "place; then run again: what is finished is kept."
            ) from error

    def write(self, uri: str, content: bytes | memoryview) -> None:  # noqa: D102 - see Storage
        self._put(uri, bytes(content))

    def swap(self, uri: str, content: bytes, *, expected: bytes | None) -> None:  # noqa: D102
        found, etag = self._get_with_etag(uri)
        if found == content:
            return
        if found != expected:
            raise ConflictError(f"{uri} has been replaced meanwhile.")
        condition = {"IfNoneMatch": "*"} if found is None else {"IfMatch": etag}
        if self._put_if(uri, content, **condition):
            return
        # A put that was repeated because its answer got lost finds itself.
        if self._get_with_etag(uri)[0] != content:
            raise ConflictError(f"{uri} has been replaced meanwhile.")

    def write_once(self, uri: str, content: bytes | memoryview) -> None:
        """See Storage. Machines of a cluster may only write what is not there yet (stack.yaml)."""
        whole = bytes(content)
        if self._put_if(uri, whole, IfNoneMatch="*"):
            return
        if self._get_with_etag(uri)[0] != whole:  # it is damaged
            self.write(uri, whole)

    def _get_with_etag(self, uri: str) -> tuple[bytes | None, str]:
        with told(self.bucket.name):
            try:
                content, answer = self._get_by_boto3(split(uri)[1])
            except ClientError as error:
                if error.response["Error"]["Code"] in GONE:
                    return None, ""
                raise
        return content, answer["ETag"]

    def _put_if(self, uri: str, content: bytes, **condition: str) -> bool:
        """Writes an object if a condition holds, and returns whether it did. Raises S3Error."""
        try:
            self._put(uri, content, **condition)
        except S3Error as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError):
                raise
            if cause.response["Error"]["Code"] not in CHANGED | GONE:
                raise
            return False
        return True

    def _put(self, uri: str, content: bytes, **condition: str) -> None:
        with told(self.bucket.name):
            self._client.put_object(
                **self._at(split(uri)[1]), Body=content, **self.encryption, **condition
            )

    @property
    def encryption(self) -> dict[str, Any]:
        """Asked for with every object written, whatever the bucket does by itself."""
        if self.bucket.kms_key is None:
            return {"ServerSideEncryption": "AES256"}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.bucket.kms_key}

    def files(self, folder: str, *, prefix: str = "") -> dict[str, Found]:  # noqa: D102
        objects, _ = self.listed(self._prefix(folder) + prefix)
        return {
            _name(one["Key"]): Found(one["Size"], one["LastModified"].timestamp())
            for one in objects
            if not one["Key"].endswith("/")
        }

    def children(self, folder: str) -> list[str]:  # noqa: D102 - see Storage
        objects, folders = self.listed(self._prefix(folder))
        return sorted({*(_name(found["Key"]) for found in objects), *map(_name, folders)})

    def is_listed(self, prefix: str) -> bool:
        """Whether the keys below a prefix may be listed."""
        try:
            self._client.list_objects_v2(Bucket=self.bucket.name, Prefix=prefix, MaxKeys=1)
        except (ClientError, BotoCoreError):
            return False
        return True

    def listed(self, prefix: str) -> tuple[list[Mapping[str, Any]], list[str]]:
        """S3's entries of the objects directly below a prefix, and the prefixes of its folders."""
        objects: list[Mapping[str, Any]] = []
        folders: list[str] = []
        with told(self.bucket.name):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket.name,
                Prefix=prefix,
                Delimiter="/",
                OptionalObjectAttributes=["RestoreStatus"],
            )
            for page in pages:
                objects += [one for one in page.get("Contents", ()) if not _is_marker(one)]
                folders += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
        return objects, folders

    def remove(self, uris: Iterable[str]) -> int:  # noqa: D102 - see Storage
        by_folder: dict[str, set[str]] = {}
        for uri in uris:
            key = split(uri)[1]
            by_folder.setdefault(key.rpartition("/")[0], set()).add(key)
        return sum(self._remove(folder, keys) for folder, keys in by_folder.items())

    def _remove(self, folder: str, keys: set[str]) -> int:
        """All versions of some objects of one folder, listed together where they are many."""
        if len(keys) < FEW:
            return sum(map(self.purge_object, keys))
        with told(self.bucket.name):
            pages = self._versions(f"{folder}/" if folder else "")
            doomed = [found for page in pages for found in page if found["Key"] in keys]
            self._delete(doomed)
        return len(doomed)

    def everything(self, folder: str) -> Iterator[Stored]:  # noqa: D102 - see Storage
        with told(self.bucket.name):
            for page in self._versions(self._prefix(folder)):
                for found in page:
                    if "Size" in found:  # a delete marker has none
                        uri = f"s3://{self.bucket.name}/{found['Key']}"
                        yield Stored(uri, found["Size"], found["VersionId"])

    def read_stored(self, stored: Stored) -> bytes:  # noqa: D102 - see Storage
        which = {"VersionId": stored.version} if stored.version else {}
        with told(self.bucket.name):
            return self._get_by_boto3(split(stored.uri)[1], **which)[0]

    def is_link(self, uri: str) -> bool:  # noqa: ARG002, D102 - a bucket has none
        return False

    def sync(self, uri: str) -> None:  # noqa: D102 - an answered request is durable
        pass

    def purge_object(self, key: str) -> int:
        """Removes all versions of the object of just this key, and returns how many there were."""
        doomed: list[Mapping[str, Any]] = []
        with told(self.bucket.name):
            for page in self._versions(key):
                doomed += [found for found in page if found["Key"] == key]
                if any(found["Key"] != key for found in page):
                    break  # of all keys that begin as it does, it is the first
            self._delete(doomed)
        return len(doomed)

    def _versions(self, prefix: str) -> Iterator[list[Mapping[str, Any]]]:
        """S3's entries of all versions and delete markers whose keys have a prefix, by pages."""
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self.bucket.name, Prefix=prefix
        )
        for page in pages:
            yield [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]

    def _delete(self, objects: Sequence[Mapping[str, Any]]) -> None:
        for start in range(0, len(objects), DELETE_BATCH):
            batch = objects[start : start + DELETE_BATCH]
            for attempt in range(1, ATTEMPTS + 1):
                names = [{part: it[part] for part in IDENTITY if part in it} for it in batch]
                answer = self._client.delete_objects(
                    Bucket=self.bucket.name, Delete={"Objects": names, "Quiet": True}
                )
                batch = answer.get("Errors", ())
                if not batch:
                    break
                busy = all(problem["Code"] in BUSY for problem in batch)
                if attempt == ATTEMPTS or not busy:
                    raise self._not_deleted(batch[0])
                _pause(attempt)

    def _not_deleted(self, problem: Mapping[str, str]) -> S3Error:
        """As if the whole request had been refused: the same reasons, the same advice."""
        refused = ClientError({"Error": dict(problem)}, "DeleteObjects")
        reason = sentence(refused, bucket=self.bucket.name)
        return S3Error(f"{problem['Key']} cannot be deleted: {reason}")

    def described(self) -> dict[str, str]:  # noqa: D102 - see Storage
        key = self.bucket.kms_key
        return {
            "region": self.bucket.region,
            "encryption": "S3's own key (SSE-S3)" if key is None else f"SSE-KMS, {key}",
        }

    def delta_options(self) -> dict[str, str]:  # noqa: D102 - see Storage
        _check_override()
        with told(self.bucket.name):
            credentials = _session(self.bucket.region).get_credentials()
            if credentials is None:
                raise NoCredentialsError
            frozen = credentials.get_frozen_credentials()
        options = {
            "aws_access_key_id": frozen.access_key,
            "aws_secret_access_key": frozen.secret_key,
            "aws_region": self.bucket.region,
            "aws_endpoint": self.bucket.url,
            "aws_virtual_hosted_style_request": "false",
            "aws_allow_http": str(self.bucket.is_local).lower(),
            "allow_invalid_certificates": "false",
            "aws_skip_signature": "false",
            "aws_s3_express": "false",
            "aws_server_side_encryption": "aws:kms" if self.bucket.kms_key else "AES256",
            "aws_conditional_put": "etag",
        }
        if frozen.token:
            options["aws_session_token"] = frozen.token
        if self.bucket.kms_key:
            options["aws_sse_kms_key_id"] = self.bucket.kms_key
        if proxy := clients.proxy_for(self.bucket.url):
            options["proxy_url"] = proxy
        else:
            options["proxy_url"], options["proxy_excludes"] = _only(self.bucket.url)
        return options

    def to_dict(self) -> dict[str, Any]:  # noqa: D102 - see Storage
        owner = {"bucket_owner": self.bucket.owner} if self.bucket.owner else {}
        pays = {"requester_pays": True} if self.bucket.requester_pays else {}
        return {"region": self.bucket.region, "kms_key": self.bucket.kms_key, **owner, **pays}

    def spark_path(self, uri: str) -> str:  # noqa: D102 - see Storage
        return "s3a" + uri.removeprefix("s3")

    def spark_config(self) -> dict[str, str]:  # noqa: D102 - see Storage
        ours = f"spark.hadoop.fs.s3a.bucket.{self.bucket.name}"
        provider = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
        config = {
            "spark.hadoop.fs.s3a.aws.credentials.provider": provider,
            f"{ours}.endpoint.region": self.bucket.region,
            # Work is committed by completing uploads: S3 has no renaming, only copies.
            "spark.hadoop.fs.s3a.committer.name": "magic",
            "spark.sql.sources.commitProtocolClass": (
                "org.apache.spark.internal.io.cloud.PathOutputCommitProtocol"
            ),
            "spark.sql.parquet.output.committer.class": (
                "org.apache.spark.internal.io.cloud.BindingParquetOutputCommitter"
            ),
        }
        if self.bucket.kms_key is None:
            config[f"{ours}.encryption.algorithm"] = "AES256"
        else:
            config[f"{ours}.encryption.algorithm"] = "SSE-KMS"
            config[f"{ours}.encryption.key"] = self.bucket.kms_key
        # Always: the JVM would look for it in the environment, which was not checked.
        config[f"{ours}.endpoint"] = self.bucket.url
        config[f"{ours}.path.style.access"] = str(self.bucket.is_local).lower()
        return config

    def _prefix(self, folder: str) -> str:
        key = split(folder)[1]
        return join(key, "") if key else ""

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket.name, "Key": key}


class _Object(io.RawIOBase):
    """An object as a file: each read is a request for just those bytes, but for the last ones.

    The last ones come with the object's size, in one request, for a Parquet file is read from its
    end.
    """

    def __init__(self, storage: S3Storage, key: str) -> None:
        super().__init__()
        self._storage, self._key, self._position = storage, key, 0
        self._tail, self._size = storage.tail(key)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        start = self._position
        stop = min(start + len(buffer), self._size)
        if start >= stop:
            return 0
        tail_start = self._size - len(self._tail)
        if start >= tail_start:
            content = self._tail[start - tail_start : stop - tail_start]
        else:
            content = self._storage.get_object(self._key, start=start, stop=stop)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def _body(body: StreamingBody, most: int | None, key: str) -> bytes:
    """A whole body, which boto3 verifies at its end. Raises OSError where it goes on for longer."""
    if most is None:
        return body.read()
    content = bytearray()
    while chunk := body.read(most + 1 - len(content)):
        content += chunk
        if len(content) > most:
            body.close()
            raise OSError(errno.ESTALE, REPLACED, key)
    return bytes(content)


def _pause(attempt: int) -> None:
    time.sleep(min(0.1 * 2**attempt, 5.0))


def _name(key: str) -> str:
    """The last name of a key or prefix."""
    return key.rstrip("/").rpartition("/")[2]


def _is_marker(found: Mapping[str, Any]) -> bool:
    """Whether an entry of a listing marks a folder, and is not a file whose key ends so."""
    return found["Key"].endswith("/") and not found["Size"]


def denied(error: S3Error) -> str | None:
    """Why one object may not be read, if that is what S3 says, though others may; else None."""
    cause = error.__cause__
    if not isinstance(cause, ClientError):
        return None
    code = cause.response["Error"]["Code"]
    message = " ".join(cause.response["Error"].get("Message", "").split())
    found = f"{code}: {message}"[:200]
    if code.startswith("KMS.") or (code in FORBIDDEN and "kms:" in message.lower()):
        return (
            f"it is encrypted with a key that may not be used ({found}); allow this user "
            "kms:Decrypt on that key, or store it with another one"
        )
    if code == "InvalidRequest" and "encryption" in message.lower():
        return (
            "it is encrypted with a key that only its owner has (SSE-C); store it without one, or "
            "move it out of the source"
        )
    if code in FORBIDDEN:
        return (
            f"access to it is denied ({found}); allow this user s3:GetObject on it, or move it out "
            "of the source"
        )
    return None


def _raise_as_os_error(error: ClientError, key: str) -> None:
    """For what concerns one object only; the rest concerns the bucket or the user."""
    code = error.response["Error"]["Code"]
    if code in GONE:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", key) from error
    if code in CHANGED:
        raise OSError(errno.ESTALE, REPLACED, key) from error
    if code == "InvalidObjectState":
        text = "it is in an archive (Glacier); restore it, then run again"
        raise OSError(errno.EBUSY, text, key) from error
