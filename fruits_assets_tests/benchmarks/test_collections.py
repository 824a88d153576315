"""Collections of others are counted, file by file."""

import io
import tarfile

import pytest
from PIL import Image

from benchmarks.collections import ARCHIVES, examined, fetched, summary
from fruits_assets.core.decoder import Decoder


def _archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return stream.getvalue()


def test_every_image_of_a_collection_is_counted_by_its_outcome() -> None:
    files = {"a/1.png": _png(), "a/2.JPG": _png()[:40], "a/notes.txt": b"text", "a/3.gif": b""}
    with Decoder() as decoder:
        outcomes = list(examined(_archive(files), decoder))
    assert [(one.file, one.format, one.outcome) for one in outcomes] == [
        ("a/1.png", "PNG", "accepted"),
        ("a/2.JPG", "JPG", "truncated"),
        ("a/3.gif", "GIF", "empty"),
    ]
    assert summary(outcomes).splitlines()[0].split() == ["accepted", "empty", "truncated"]
    assert summary(outcomes).endswith("3 files")


def test_an_archive_that_is_not_the_one_that_was_meant_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda _: io.BytesIO(b"another"))
    with pytest.raises(ValueError, match="SHA-256"):
        fetched(ARCHIVES[0])
