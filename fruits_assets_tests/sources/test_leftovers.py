"""What lies beside photos is passed over and counted, and what may be a photo is not."""

from pathlib import Path

import pytest

from fruits_assets.core.errors import SourceError
from fruits_assets.sources.leftovers import hidden_kind, named_after, sidecars
from fruits_assets.sources.listing import LISTING, Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.storage.places import folder_at

LEFT = {
    "@eaDir": "@eaDir",
    "#recycle": "#recycle",
    "$RECYCLE.BIN": "$RECYCLE.BIN",
    "$Recycle.Bin": "$RECYCLE.BIN",
    "__MACOSX": "__MACOSX",
    "._1.jpg": "._*",
    ".DS_Store": ".DS_Store",
    ".Trashes": ".Trashes",
    ".anything": ".*",
    "Thumbs.db": "Thumbs.db",
    "desktop.ini": "desktop.ini",
    "_SUCCESS": "_SUCCESS",
    "Apple_$folder$": "*_$folder$",
    "System Volume Information": "System Volume Information",
    "lost+found": "lost+found",
    "~$photos.xlsx": "~$*",
    "__MACOSX\\Apple\\1.jpg": "__MACOSX",
    "Apple\\._1.jpg": "._*",
}
SEEN = ("1.jpg", "thumbs.db.jpg", "@home", "#1", "_1.jpg", "recycle", "success", "a$folder$.jpg")


@pytest.mark.parametrize("name", LEFT)
def test_leftovers_of_systems_are_known_by_their_names(name: str) -> None:
    assert hidden_kind(name) == LEFT[name]


@pytest.mark.parametrize("name", SEEN)
def test_other_names_are_not_passed_over(name: str) -> None:
    assert hidden_kind(name) is None


SIDECARS = (
    *("Apple/1.xml", "Apple/1.JSON", "Apple/1.txt", "Apple/1.jpg.xmp", "Apple/2.XMP"),
    *("Apple/1.jpg.supplemental-metadata.json", "Apple/1.jpg.json", "Apple/1.jpg.md5"),
    *("live/IMG_1.MOV", "live/img_1.mp4", "live/IMG_1.aae", "live/9.AAE", "film/9.THM"),
    *("Annotations/1.xml", "labels/IMG_1.txt"),
    *("README.dataset.txt", "readme.md", "LICENSE", "train/_annotations.coco.json", "data.yaml"),
    *("classes.txt",),
)
"""Beside the photos below."""
PHOTOS = ("Apple/1.jpg", "live/IMG_1.HEIC")
OTHERS = (
    *("notes.txt", "Apple/2.txt", "live/film.mov", "Annotations/1.mov", "Apple/1.pdf", "Apple/1"),
    *("labels", "table.csv", "Apple/1.jpg.part", "Apple/10.md5", "data.txt.jpg", "1.zip"),
)


def test_sidecars_are_known_by_the_photos_that_they_are_named_after() -> None:
    assert set(sidecars(lambda: [*PHOTOS, *SIDECARS, *OTHERS])) == set(SIDECARS)


def test_without_photos_nothing_is_a_sidecar_that_could_be_one() -> None:
    found = sidecars(lambda: [*SIDECARS, *OTHERS])
    assert set(found.values()) == {
        ".xmp",
        ".aae",
        ".thm",
        ".txt",
        ".md",
        "LICENSE",
        ".json",
        ".yaml",
    }
    assert not {"Apple/1.xml", "live/IMG_1.MOV", "Annotations/1.xml"} & set(found)


def test_sidecars_of_a_photo_are_those_in_its_folder() -> None:
    assert set(named_after(["Apple/1.jpg"], SIDECARS)) == {
        *("Apple/1.xml", "Apple/1.JSON", "Apple/1.txt", "Apple/1.jpg.xmp"),
        *("Apple/1.jpg.supplemental-metadata.json", "Apple/1.jpg.json", "Apple/1.jpg.md5"),
    }


def _put(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"content")


def test_what_is_passed_over_is_counted_by_kind(tmp_path: Path) -> None:
    source = tmp_path / "source"
    _put(source, "A/1.jpg", "A/1.xml", "A/1.txt", "A/@eaDir/1.jpg/T.jpg", "#recycle/2.jpg", "._a")
    listing = photos_at(folder_at(str(source))).list(recursive=True)
    assert listing.files["path"].to_pylist() == ["A/1.jpg"]
    assert (listing.hidden, listing.sidecars, listing.repeated) == (3, 2, 0)
    assert listing.kinds == {"@eaDir": 1, "#recycle": 1, "._*": 1, ".xml": 1, ".txt": 1}
    assert set(listing.beside) == {"A/1.xml", "A/1.txt"}
    written = listing.write(folder_at(str(tmp_path / LISTING)))
    assert Listing.of(written, listing.root) == listing


def test_a_source_of_leftovers_alone_says_what_they_are(tmp_path: Path) -> None:
    _put(tmp_path, "Thumbs.db", "a/@eaDir/1.jpg", "b.aae")
    with pytest.raises(SourceError, match=r"no file \(1 \.aae, 1 @eaDir, 1 Thumbs\.db were passed"):
        photos_at(folder_at(str(tmp_path))).list(recursive=True)
