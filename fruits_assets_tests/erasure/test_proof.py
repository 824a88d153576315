"""The search finds a path, a hash or a picture wherever it stands, and nothing that is like it."""

import hashlib
import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fruits_assets.erasure.plan import Plan
from fruits_assets.erasure.proof import Search

PATHS = ("a/1.jpg", "b c/1.jpg", "c/1.jpg", "été/1.jpg")
HASH = hashlib.sha256(b"a file").hexdigest()


@pytest.fixture
def search() -> Search:
    return Search(Plan(paths=frozenset(PATHS), sha256=frozenset({HASH})))


@pytest.mark.parametrize(
    "text",
    [
        "a/1.jpg",
        "a/1.jpg at the beginning, or at the end: a/1.jpg",
        '["a/1.jpg"]',
        "not xa/1.jpg, but a/1.jpg",
        "not a/1.jpg2, but\0a/1.jpg\0",
        "ab c/1.jpg",  # its end is a path of its own
        "a/1.jpga/1.jpg\n(été/1.jpg)",
        f"x{HASH}x",
    ],
)
def test_what_was_to_go_is_found(search: Search, text: str) -> None:
    assert search.is_in(text.encode())


@pytest.mark.parametrize(
    "text",
    ["", "1.jpg", "aa/1.jpg", "/a/1.jpg", "a/1.jpg2", "a/1.jpg/", "a/1_jpg", "ac/1.jpg", HASH[1:]],
)
def test_what_is_like_it_is_not(search: Search, text: str) -> None:
    assert not search.is_in(text.encode())


def test_a_file_is_found_by_its_content(search: Search) -> None:
    assert search.is_in(b"a file")
    assert not search.is_in(b"a file of another content")


def test_nothing_is_found_of_no_plan() -> None:
    assert not Search(Plan()).is_in(b"a/1.jpg")


GROUP_BYTES = 2**20


def parquet(photos: list[bytes], paths: list[str]) -> bytes:
    """A file with a row group per photo."""
    sink = io.BytesIO()
    table = pa.table({"path": paths, "content": pa.array(photos, pa.binary())})
    pq.write_table(table, sink, row_group_size=1, compression="none", use_dictionary=False)
    return sink.getvalue()


@pytest.fixture(scope="module")
def photos() -> list[bytes]:
    chance = np.random.default_rng(0)
    return [chance.bytes(GROUP_BYTES) for _ in range(8)]


@pytest.fixture(scope="module")
def of_eight(photos: list[bytes]) -> bytes:
    return parquet(photos, [f"x/{i}.jpg" for i in range(8)])


@pytest.fixture
def peak() -> Iterator[pa.MemoryPool]:
    """What Arrow allocates meanwhile."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    yield pool
    pa.set_memory_pool(before)


def test_every_row_group_of_a_table_is_searched(
    search: Search, photos: list[bytes], of_eight: bytes
) -> None:
    assert not search.is_in(of_eight)
    assert search.is_in(parquet(photos, [*[""] * 7, PATHS[0]]))
    of_picture = Search(Plan(content_sha256=frozenset({hashlib.sha256(photos[-1]).hexdigest()})))
    assert of_picture.is_in(of_eight)
    assert not of_picture.is_in(parquet(photos[:-1], [""] * 7))


def test_a_table_is_decoded_one_row_group_at_a_time(
    search: Search, of_eight: bytes, peak: pa.MemoryPool
) -> None:
    assert not search.is_in(of_eight)
    assert 0 < peak.max_memory() < 4 * GROUP_BYTES


def test_metadata_of_a_table_without_rows_are_searched(search: Search) -> None:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, pa.schema([("a", "int8")], {"root": f"see {PATHS[0]}"})):
        pass
    assert search.is_in(sink.getvalue())


def test_a_table_that_is_cut_is_searched_as_a_text(search: Search, photos: list[bytes]) -> None:
    whole = parquet(photos[:1], [""])
    assert not search.is_in(whole[: len(whole) // 2])
    assert search.is_in(whole[: len(whole) // 2] + b"," + PATHS[0].encode())
