"""One folder holds all that is handed over: complete, named, verifiable, and made once."""

import csv
import io
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import dagster as dg
import numpy as np
import pytest

from fruits_assets.assets.authorship import Authorship
from fruits_assets.assets.deliverables import DeliverablesConfig
from fruits_assets.assets.gallery import GalleryConfig
from fruits_assets.checks import CHECKS
from fruits_assets.deliverables import gather as gathering
from fruits_assets.deliverables.escaping import markdown
from fruits_assets.deliverables.folder import CHECKSUMS, Published, index_uri
from fruits_assets.deliverables.gather import Made, Names, Presented, facts, gather
from fruits_assets.deliverables.page import Card, Link, Page
from fruits_assets.deliverables.texts import MONTHS, TEXTS, month, number, percent, size
from fruits_assets_tests.conftest import Pipeline, failure
from fruits_assets_tests.leaks import PERSON, leaks
from fruits_assets_tests.places import Place
from fruits_assets_tests.stand_ins import hand_over

NOTEBOOK = "Nom_Prenom_1_notebook_112026.ipynb"
NOTEBOOK_HTML = "Nom_Prenom_1_notebook_112026.html"
IMAGES = "Nom_Prenom_2_images_112026.csv"
PRESENTATION = "Nom_Prenom_3_presentation_112026.pptx"
NAMED = (NOTEBOOK, NOTEBOOK_HTML, IMAGES, PRESENTATION)
ACCURACY = f"<dt>{TEXTS['fr']['accuracy']}</dt>"
PAGE = ("index.html", "page.css", "page.js", "map.js", "photos.js")


@pytest.fixture(scope="module")
def handed_over(
    finished, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pipeline, dg.ExecuteInProcessResult]:
    base = shutil.copytree(finished[0].lake.base, tmp_path_factory.mktemp(PERSON) / "lake")
    pipeline = Pipeline(type(finished[0].lake).at(str(base)), finished[0].source)
    return pipeline, hand_over(pipeline)


@pytest.fixture
def own(handed_over, tmp_path: Path) -> Pipeline:
    """The same lake, to be changed."""
    base = shutil.copytree(handed_over[0].lake.base, tmp_path / "lake")
    return Pipeline(type(handed_over[0].lake).at(str(base)), handed_over[0].source)


@pytest.fixture
def published(handed_over) -> Published:
    assert handed_over[1].success
    return lying_in(handed_over[0])


def lying_in(pipeline: Pipeline) -> Published:
    return Published.read(pipeline.lake.folder)


def html(published: Published) -> str:
    return published.folder.read("index.html").decode()


def times(published: Published) -> dict[str, float]:
    """When each file was written last, by name."""
    return {name: found.modified_at for name, found in published.folder.files().items()}


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.found += [value or "" for name, value in attrs if name in ("href", "src")]


def test_everything_is_in_one_flat_folder(published: Published, handed_over):
    lake = handed_over[0].lake
    assert set(published.sums) == {*NAMED, *PAGE, *lake.current("gallery").names()}
    there = {path.name for path in Path(lake.base, "deliverables").iterdir()}
    assert there == {*published.sums, CHECKSUMS}
    assert published.is_whole()
    assert "deliverables" not in lake.tables(), "people open it: it is not a table"


def test_what_is_copied_is_what_was_made(published: Published, handed_over):
    lake = handed_over[0].lake
    for asset in ("notebook", "presentation", "gallery"):
        source = lake.current(asset)
        for name in source.names():
            assert published.folder.read(name) == source.read(name)


def test_no_file_says_where_it_was_made(published: Published, handed_over):
    folder = published.folder
    files = {name: folder.read(name) for name in folder.sizes()}
    assert CHECKSUMS in files
    assert not leaks(files, folder.uri, str(handed_over[0].source), tempfile.gettempdir())


def test_the_checksums_are_verified_by_the_usual_command(published: Published, tmp_path: Path):
    folder = Path(shutil.copytree(published.folder.uri, tmp_path / "sent"))
    verify = ["sha256sum", "--strict", "-c", CHECKSUMS]
    done = subprocess.run(verify, cwd=folder, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == len(published.sums)
    (folder / PRESENTATION).write_bytes(b"another")
    done = subprocess.run(verify, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode
    assert f"{PRESENTATION}: FAILED" in done.stdout


def test_every_link_of_the_page_leads_to_a_file_of_the_folder(published: Published):
    links = _Links()
    links.feed(html(published))
    assert {*NAMED, CHECKSUMS, "gallery.js", *PAGE[1:]} <= {*links.found}
    for link in links.found:
        assert Path(published.folder.uri, unquote(link)).is_file(), link


def test_the_page_says_sizes_and_checksums(published: Published):
    page = html(published)
    sizes = published.folder.sizes()
    for name in NAMED:
        assert published.sums[name] in page
        assert size(sizes[name], "fr") in page


def test_the_page_says_the_figures_of_the_run(published: Published, handed_over):
    lake = handed_over[0].lake
    page = html(published)
    model = lake.current("pca_model").figures
    assert "Prénom Nom" in page
    assert "novembre 2026" in page
    values = re.findall('class="value">([^<]*)<', page)
    assert values[:3] == ["90", "15", "0"]
    assert values[3] == str(model["components"])
    assert values[4] == percent(model["explained_variance"], "fr")
    recognition = lake.current("recognition").figures
    assert values[5] == percent(recognition["accuracy_components"], "fr")
    assert values[6] == "locale"
    for asset in ("notebook", "gallery", "raw_images", "pca_model", "recognition"):
        assert lake.current(asset).version in page


def test_the_table_has_all_photos_and_components(published: Published, handed_over):
    projected = handed_over[0].lake.current("pca_features")
    rows = list(csv.reader(io.StringIO(published.folder.read(IMAGES).decode(), newline="")))
    table = projected.arrow(["path", "label", "components"]).to_pydict()
    assert rows[0][:3] == ["path", "label", "pc_1"]
    assert [row[0] for row in rows[1:]] == table["path"]
    assert [row[1] for row in rows[1:]] == table["label"]
    numbers = np.array([row[2:] for row in rows[1:]], np.float32)
    np.testing.assert_allclose(numbers, np.array(table["components"], np.float32), rtol=1e-6)


def test_components_of_many_photos_are_several_tables(
    own: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    before = lying_in(own)
    whole = before.folder.read(IMAGES).decode().splitlines()
    most = (len(whole) - 1) // 2 - 1
    monkeypatch.setattr(gathering, "MOST_ROWS", most)
    assert hand_over(own, "deliverables", config={"deliverables": {"force": True}}).success
    published = lying_in(own)
    names = [IMAGES, *(IMAGES.replace(".csv", f"-{i}.csv") for i in (2, 3))]
    assert {*published.sums} - {*before.sums} == {*names[1:]}
    tables = [published.folder.read(name).decode().splitlines() for name in names]
    assert [len(table) - 1 for table in tables[:2]] == [most, most]
    assert all(table[0] == whole[0] for table in tables)
    assert [row for table in tables for row in table[1:]] == whole[1:]
    assert all(f'href="{name}"' in html(published) for name in names)

    monkeypatch.undo()
    assert hand_over(own, "deliverables", config={"deliverables": {"force": True}}).success
    assert lying_in(own) == before, "tables that are no longer needed are removed"


def test_a_label_that_is_a_formula_is_text_in_the_table(own: Pipeline, tmp_path: Path):
    source = Path(shutil.copytree(own.source, tmp_path / "photos"))
    # The PCA is not fitted on these.
    (source / "Test" / "Banana").rename(source / "Test" / "=HYPERLINK(1)")
    renamed = Pipeline(own.lake, source)
    assert renamed.run().success
    assert hand_over(renamed).success
    content = lying_in(renamed).folder.read(IMAGES).decode()
    assert '"\'=HYPERLINK(1)"' in content
    assert '"=HYPERLINK(1)"' not in content


def test_nothing_is_written_twice(own: Pipeline):
    before = lying_in(own)
    then = times(before)
    assert hand_over(own).success
    assert lying_in(own) == before
    assert times(before) == then
    assert hand_over(own, "deliverables", config={"deliverables": {"force": True}}).success
    after = lying_in(own)
    assert after == before, "the same question has the same answer"
    now = times(after)
    assert all(now[name] > then[name] for name in after.names)


@pytest.mark.parametrize("change", ["damaged", "gone"])
def test_a_file_that_is_not_what_was_written_is_written_again(own: Pipeline, change: str):
    before = lying_in(own)
    file = Path(before.folder.uri, PRESENTATION)
    file.unlink() if change == "gone" else file.write_bytes(bytes(file.stat().st_size))
    assert hand_over(own, "deliverables").success
    assert lying_in(own) == before
    assert before.is_whole()


def test_another_author_gives_other_names(own: Pipeline):
    Path(own.lake.base, "deliverables", "own.txt").write_text("a note beside them")
    jeanne = Authorship(
        last_name="d'Arc", first_name="Zoé <b>", month="2027-01", place="<i>Orléans</i>"
    )
    assert hand_over(own, authorship=jeanne).success
    published = lying_in(own)
    assert {"d-Arc_Zoe-b_1_notebook_012027.html", "d-Arc_Zoe-b_2_images_012027.csv"} < {
        *published.sums
    }
    there = published.folder.sizes().keys()
    assert there == {*published.sums, CHECKSUMS, "own.txt"}
    assert not there & {*NAMED}
    page = html(published)
    assert "Zoé &lt;b&gt; d&#39;Arc" in page
    assert "&lt;i&gt;Orléans&lt;/i&gt;" in page
    assert "janvier 2027" in page


def test_a_notebook_of_another_author_is_refused(own: Pipeline):
    before = lying_in(own)
    other = Authorship(last_name="Autre", month="2026-11")
    text = failure(hand_over(own, "deliverables", authorship=other))
    assert "has no file Autre_Prenom_1_notebook_112026" in text
    assert "Materialise notebook again, then deliverables" in text
    assert lying_in(own) == before
    assert before.is_whole(), "nothing was written"


def test_a_damaged_notebook_is_refused(own: Pipeline):
    notebook = own.lake.current("notebook")
    (part,) = notebook.files
    file = Path(notebook.uri, part.name)
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    config = {"deliverables": {"language": "en"}}
    text = failure(hand_over(own, "deliverables", config=config))
    assert f"notebook, version {notebook.version}" in text
    assert part.name in text


def test_the_page_is_there_in_english(own: Pipeline):
    config = {"language": "en", "attribution": "Photos: J. Doe & Sons, <CC BY>"}
    assert hand_over(own, "deliverables", config={"deliverables": config}).success
    page = html(lying_in(own))
    assert '<html lang="en">' in page
    assert "November 2026" in page
    assert "Photos: J. Doe &amp; Sons, &lt;CC BY&gt;" in page
    assert "Les livrables" not in page


def test_what_is_not_known_is_not_said(own: Pipeline):
    shutil.rmtree(Path(own.lake.base, "recognition"))
    assert hand_over(own, "deliverables").success
    assert ACCURACY not in html(lying_in(own))


@pytest.mark.slow
def test_the_accuracy_of_other_components_is_not_said(own: Pipeline):
    assert ACCURACY in html(lying_in(own))
    recognition = own.lake.current("recognition")
    config = {"pca_model": {"n_components": 3}}
    assert own.run("pca_model", "pca_features", config=config).success
    assert hand_over(own).success
    assert own.lake.current("recognition") == recognition
    assert ACCURACY not in html(lying_in(own))
    assert replace(own, checks=CHECKS).run("pca_features").success
    assert hand_over(own).success
    assert ACCURACY in html(lying_in(own)), "measured again"


def test_a_sample_is_said_to_be_one(own: Pipeline):
    assert hand_over(own, config={"gallery": {"max_photos": 30}}).success
    assert "30 photos sur 90 sont montrées" in html(lying_in(own))


def test_the_ui_shows_where_to_begin(handed_over, published: Published):
    _, result = handed_over
    (of_deliverables,) = result.asset_materializations_for_node("deliverables")
    assert of_deliverables.metadata["open"].value == f"{published.folder.uri}/index.html"
    assert markdown(PRESENTATION) in of_deliverables.metadata["deliverables"].value
    assert of_deliverables.tags["dagster/data_version"] == published.recipe
    (of_gallery,) = result.asset_materializations_for_node("gallery")
    assert of_gallery.metadata["photos"].value == 90
    assert of_gallery.metadata["thumbnails"].value.startswith("![](data:image/")


def test_commands_can_say_what_there_is(handed_over, published: Published):
    assert index_uri(handed_over[0].lake.folder) == f"{published.folder.uri}/index.html"
    assert published.headline == "4 files under their names, and a page"
    there = Path(published.folder.uri).iterdir()
    listed = [path.stat().st_size for path in there if path.name != CHECKSUMS]
    assert published.bytes == sum(listed)


def test_it_lies_in_a_bucket_as_in_a_folder(handed_over, published: Published, place: Place):
    names = Names(
        notebook=NOTEBOOK, notebook_html=NOTEBOOK_HTML, images=IMAGES, presentation=PRESENTATION
    )
    made = made_of(handed_over[0])
    presented = Presented("Prénom Nom", date(2026, 11, 1), "", "fr", "")
    found = gather(
        Published.read(place.opened),
        made,
        recipe=published.recipe,
        names=names,
        presented=presented,
    )
    assert found.is_whole()
    there = {name: place.get(name) for name in place.names("deliverables")}
    files = {f"deliverables/{name}": published.folder.read(name) for name in found.names}
    assert there == files | {f"deliverables/{CHECKSUMS}": published.content}


def made_of(pipeline: Pipeline) -> Made:
    names = [name for name in Made.__annotations__ if name in pipeline.lake.tables()]
    return Made(**{name: pipeline.lake.current(name) for name in names})


def test_the_region_of_a_bucket_is_said(handed_over, monkeypatch: pytest.MonkeyPatch):
    made = made_of(handed_over[0])
    described = {"region": "eu-west-3", "encryption": "SSE-KMS"}
    monkeypatch.setattr(type(made.raw_images.folder.storage), "described", lambda _: described)
    last = list(facts(made, "fr"))[-1]
    assert (last.value, last.note) == ("eu-west-3", "Union européenne")


def test_languages_have_the_same_texts_and_placeholders():
    french, english = TEXTS["fr"], TEXTS["en"]
    assert list(french) == list(english)
    for key, text in french.items():
        assert text
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), key
        assert not hasattr(french, key), f"{key} is a method of the table in a template"
    assert {len(months) for months in MONTHS.values()} == {12}


def test_no_text_is_unused_and_none_is_missing():
    folder = Path(__file__).parents[2] / "fruits_assets" / "deliverables"
    sources = [*(folder / "gallery").iterdir(), folder / "gather.py"]
    code = "\n".join(source.read_text() for source in sources)
    used = set(re.findall(r'texts\.(\w+)|texts\["(\w+)"\]', code))
    used = {name for pair in used for name in pair if name}
    cards = re.findall(r'card\("(\w+)"', code)
    used |= {*cards, *(f"{card}_text" for card in cards)}
    used |= {text for _, text in re.findall(r'\((names\.\w+|name), "(\w+_\w+)"\)', code)}
    assert used == set(TEXTS["fr"])


def test_numbers_are_written_as_the_language_does():
    assert number(1234567, "fr") == "1\u202f234\u202f567"
    assert number(1234.5, "en", digits=1) == "1,234.5"
    assert percent(0.9561, "fr") == "95,6\u202f%"
    assert percent(1, "en") == "100.0%"
    sizes = [0, 999, 1000, 44_428_718, 3 * 10**12]
    expected = ["0 octets", "999 octets", "1,0 ko", "44,4 Mo", "3\u202f000,0 Go"]
    assert [size(one, "fr").replace("\u00a0", " ") for one in sizes] == expected
    assert month(date(2026, 8, 1), "fr") == "août 2026"


def test_what_cannot_be_seen_is_made_visible():
    turned = "\N{RIGHT-TO-LEFT OVERRIDE}gpj.\0exe"
    page = Page(
        language="fr",
        author=turned,
        month="mai 2026",
        place=turned,
        cards=[Card("images", [Link("a b?<c>.csv", 1, "0" * 64, "x")])],
        facts=[],
        attribution=turned,
    )
    content = page.files()["index.html"].decode()
    assert content.count("\ufffdgpj.\ufffdexe") == 3
    assert 'href="a%20b%3F%3Cc%3E.csv"' in content
    assert "<c>" not in content


def test_every_config_field_is_described():
    for config in (DeliverablesConfig, GalleryConfig):
        for name, field in config.model_fields.items():
            assert field.description, f"{config.__name__}.{name}"
