"""A plan finds everything that is named, and nothing else, before anything is changed."""

import hashlib
import io
import os
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fruits_assets.core.errors import ErasureError, SourceError
from fruits_assets.erasure import plan as plans
from fruits_assets.erasure.plan import Asked, Plan
from fruits_assets.sources.places import photos_at
from fruits_assets.storage.places import folder_at
from fruits_assets_tests.conftest import Pipeline
from fruits_assets_tests.erasure.traces import files_of, rows_of

BANANA = "Training/Banana/1.jpg"
COPY = "Training/Apple/same.jpg"


def planned(
    pipeline: Pipeline,
    *paths: str,
    sha256: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    keep_source: bool = False,
) -> Plan:
    """The plan of an erasure of what is named."""
    photos = photos_at(folder_at(str(pipeline.source)))
    asked = Asked.of(paths, sha256, labels)
    return plans.make(pipeline.lake, photos, asked, keep_source=keep_source)


def ingest(pipeline: Pipeline) -> None:
    assert pipeline.run("raw_images", "rejected_images").success


def test_a_photo_is_found_by_path_hash_and_label(own: Pipeline):
    found = planned(own, BANANA)
    assert found.paths == found.source == {BANANA}
    (digest,) = found.sha256
    assert planned(own, sha256=(digest.upper(),)) == found
    of_class = {row["path"] for row in rows_of(own.lake, "raw_images", "path")}
    of_class = {path for path in of_class if "/Banana/" in path}
    assert planned(own, labels=("Banana",)).paths == of_class
    assert len(of_class) == 6


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ((BANANA, "Training/Banana/l.jpg"), "paths"),
        (("../secret.jpg",), "paths"),
        (("\udcff.jpg",), "paths"),
        (("Test/Banana",), "paths"),
        (("Bana",), "labels"),
        (("",), "labels"),
        (("0" * 64,), "sha256"),
    ],
)
def test_a_name_that_matches_nothing_is_an_error_and_changes_nothing(
    own: Pipeline, tmp_path: Path, names: tuple[str, ...], kind: str
):
    (tmp_path / "secret.jpg").write_bytes(b"not of the source")
    before = files_of(own.lake)
    with pytest.raises(ErasureError, match=f"{kind} number {len(names)} of {len(names)}") as found:
        planned(
            own,
            *(names if kind == "paths" else ()),
            sha256=names if kind == "sha256" else (),
            labels=names if kind == "labels" else (),
        )
    assert names[-1] not in str(found.value) or not names[-1], "Dagster's log keeps the sentence"
    assert files_of(own.lake) == before


def test_nothing_named_finishes_an_interrupted_erasure_or_is_refused(own: Pipeline):
    with pytest.raises(ErasureError, match="nothing is named to be erased"):
        planned(own)
    interrupted = Plan(paths=frozenset({BANANA}), source=frozenset({BANANA}))
    plans.write(own.lake, interrupted)
    assert planned(own) == interrupted


def test_names_are_compared_whatever_their_unicode_form(own: Pipeline):
    composed, decomposed = (unicodedata.normalize(form, "Pêche") for form in ("NFC", "NFD"))
    shutil.copytree(own.source / "Test" / "Banana", own.source / "Test" / decomposed)
    for file in (own.source / "Test" / decomposed).iterdir():
        file.write_bytes(file.read_bytes() + b"another file")
    expected = {f"Test/{decomposed}/{number}.jpg" for number in (1, 2)}
    expected &= {
        f"Test/{decomposed}/{file.name}" for file in (own.source / "Test" / decomposed).iterdir()
    }
    assert expected <= planned(own, labels=(composed,)).source
    ingest(own)
    found = planned(own, labels=(composed,))
    assert expected <= found.source
    assert expected <= found.paths
    name = min(expected)
    assert name in planned(own, unicodedata.normalize("NFC", name)).source


def test_sidecars_of_a_photo_go_with_it(own: Pipeline):
    beside = ["Training/Banana/1.xml", "Training/Banana/1.jpg.json"]
    others = ["Training/Banana/2.json", "Training/Apple Red/1.xml", "Annotations/1.xml"]
    for path in (*beside, *others):
        (own.source / path).parent.mkdir(exist_ok=True)
        (own.source / path).write_text("taken at home")
    assert planned(own, BANANA).source == {BANANA, *beside}
    assert planned(own, others[-1]).source == {others[-1]}


def test_a_class_is_named_by_the_rule_of_the_run(own: Pipeline):
    source = own.source / "Training"
    (source / "Citrus").mkdir()
    (source / "Lemon").rename(source / "Citrus" / "Lemon")
    run = own.run("raw_images", "rejected_images", config={"ingest": {"labels": "first"}})
    assert run.success
    new = source / "Citrus" / "Lemon" / "new.jpg"
    new.write_bytes(b"seen by no run")
    expected = {f"Training/Citrus/Lemon/{path.name}" for path in new.parent.iterdir()}
    assert planned(own, labels=("Citrus",)).source == expected
    assert expected & planned(own, labels=("Lemon",)).paths, "they had that label before"


def test_an_erasure_from_an_archive_is_refused_beforehand(own: Pipeline, tmp_path: Path):
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", own.source))
    packed = replace(own, source=archive)
    before = files_of(own.lake)
    with pytest.raises(ErasureError, match=r"nothing was erased: the source .* is an archive"):
        planned(packed, BANANA)
    assert planned(packed, BANANA, keep_source=True).paths == {BANANA}
    assert files_of(own.lake) == before


def with_comment(photo: bytes) -> bytes:
    """The same JPEG with a comment: another file, the same picture."""
    comment = b"a comment"
    return photo[:2] + b"\xff\xfe" + (2 + len(comment)).to_bytes(2, "big") + comment + photo[2:]


@pytest.mark.parametrize("seen", [True, False], ids=["ingested", "new in the source"])
@pytest.mark.parametrize("same", [with_comment, bytes], ids=["other metadata", "same file"])
def test_the_same_picture_is_erased_too(own: Pipeline, seen: bool, same: type[bytes]):
    (own.source / COPY).parent.mkdir(exist_ok=True)
    (own.source / COPY).write_bytes(same((own.source / BANANA).read_bytes()))
    if seen:
        ingest(own)
    for named in (BANANA, COPY):
        found = planned(own, named)
        assert found.source == {BANANA, COPY}
        assert found.paths == ({BANANA, COPY} if seen else {BANANA})


def test_the_hash_of_a_new_file_leads_to_new_files_with_other_metadata(own: Pipeline):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(buffer, "JPEG")
    for name, content in (("a.jpg", with_comment(buffer.getvalue())), ("b.jpg", buffer.getvalue())):
        (own.source / name).write_bytes(content)
    found = planned(own, sha256=(hashlib.sha256(buffer.getvalue()).hexdigest(),))
    assert (found.paths, found.source) == (set(), {"a.jpg", "b.jpg"})


def test_another_photo_that_took_the_name_of_a_copy_stays(own: Pipeline):
    (own.source / COPY).parent.mkdir(exist_ok=True)
    shutil.copy(own.source / BANANA, own.source / COPY)
    ingest(own)
    shutil.copy(own.source / "Training/Banana/2.jpg", own.source / COPY)
    found = planned(own, BANANA)
    assert found.paths == {BANANA, COPY}
    assert found.source == {BANANA}, "the other file shows another picture by now"


def test_it_is_the_source_that_is_configured_now_that_is_erased_from(own: Pipeline, tmp_path: Path):
    shutil.copytree(own.source, tmp_path / "moved")
    (own.source / BANANA).unlink()
    assert planned(replace(own, source=tmp_path / "moved"), BANANA).source == {BANANA}
    assert planned(own, BANANA).source == set()
    with pytest.raises(SourceError, match="does not exist"):
        planned(replace(own, source=tmp_path / "nowhere"), BANANA)


def test_a_source_that_is_kept_is_not_planned_for(own: Pipeline):
    found = planned(own, BANANA, keep_source=True)
    assert (found.paths, found.source) == ({BANANA}, set())


def test_a_file_whose_name_is_not_text_is_found(own: Pipeline):
    file = Path(os.fsdecode(os.fsencode(own.source) + b"/Test/Banana/\xff.jpg"))
    file.write_bytes(b"not read, for its name is not valid")
    ingest(own)
    (row,) = rows_of(own.lake, "rejected_images", "path")
    found = planned(own, row["path"])
    assert found.source == {row["path"]}
    assert photos_at(folder_at(str(own.source))).erase([row["path"]]) == 1
    assert not file.exists()


def test_what_only_an_older_version_holds_is_found(own: Pipeline):
    (own.source / BANANA).unlink()
    ingest(own)
    assert BANANA not in {row["path"] for row in rows_of(own.lake, "raw_images", "path")}
    assert planned(own, BANANA).paths == {BANANA}


def test_what_no_run_has_seen_is_found_in_the_source(own: Pipeline):
    (own.source / "new.jpg").write_bytes(b"not a photo")
    found = planned(own, "new.jpg")
    assert (found.paths, found.source) == (set(), {"new.jpg"})
    assert len(found.sha256) == 1


def test_what_cannot_be_read_is_not_waited_for_and_found_by_its_name(own: Pipeline, tmp_path: Path):
    os.mkfifo(own.source / "pipe.jpg")
    (tmp_path / "secret.jpg").write_bytes((own.source / BANANA).read_bytes())
    (own.source / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    with (own.source / "vast.jpg").open("wb") as file:
        file.truncate(10**12)
    found = planned(own, BANANA, "pipe.jpg", "vast.jpg")
    assert found.source == {BANANA, "pipe.jpg", "vast.jpg"}
    assert len(found.sha256) == 1


def test_names_that_the_journal_knows_count_as_matched(own: Pipeline):
    plans.write(own.lake, Plan(paths=frozenset({"gone.jpg"}), sha256=frozenset({"ab"})))
    found = planned(own, "gone.jpg", BANANA)
    assert found.paths == {"gone.jpg", BANANA}
    assert planned(own, sha256=("ab",)).paths == {"gone.jpg"}
    plans.forget(own.lake)
    with pytest.raises(ErasureError):
        planned(own, "gone.jpg")


def test_a_journal_that_is_damaged_is_said(own: Pipeline):
    plans.folder(own.lake).write(plans.JOURNAL, b"{}")
    with pytest.raises(ErasureError, match=r"erasures/journal\.json\) cannot be read"):
        planned(own, BANANA)
