"""The command line says what there is in sentences, and does what it says."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fruits_assets import cli
from fruits_assets.erasure.plan import Plan
from fruits_assets.lake.lake import Lake
from fruits_assets_tests.conftest import REPOSITORY, Pipeline
from fruits_assets_tests.erasure.traces import erase, evidence, files_of, rows_of, traces

BANANA = "Training/Banana/1.jpg"
Fruits = Callable[..., Result]
ENDS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def fruits(own: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fruits:
    """Types a command as somebody whose settings are those of the pipeline."""
    for name in ("SOURCE", "LAKE", "WEIGHTS"):
        monkeypatch.delenv(f"FRUITS_{name}", raising=False)
    monkeypatch.setenv("FRUITS_SOURCE", str(own.source))
    monkeypatch.setenv("FRUITS_LAKE", own.lake.base)
    monkeypatch.setenv("FRUITS_WEIGHTS", "sample")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return lambda *arguments: CliRunner().invoke(cli.main, [*arguments])


def test_status_shows_what_the_lake_holds(fruits: Fruits, own: Pipeline):
    shown = fruits("status")
    assert shown.exit_code == 0
    assert f"The lake {own.lake.base} holds:" in shown.output
    version = own.lake.current("features").version
    assert re.search(rf"features +{version} +0 +\d", shown.output)
    assert "90 photos, 15 classes" in shown.output
    assert "_listing" not in shown.output


def test_check_reports_on_a_source_and_writes_no_lake(
    fruits: Fruits, own: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("FRUITS_LAKE", str(tmp_path / "no lake"))
    (own.source / "Test" / "Banana" / "9.jpg").write_text("no photo")
    shutil.copy(own.source / BANANA, own.source / "Test" / "Banana" / "copy.jpg")
    shown = fruits("check", str(own.source))
    assert shown.exit_code == 0
    assert "92 files in" in shown.output
    assert re.search(r"\.jpg +not_an_image +1 +Test/Banana/9\.jpg", shown.output)
    assert re.search(rf"across splits +2 +.*{BANANA}", shown.output)
    assert "Slowest" in shown.output
    assert not (tmp_path / "no lake").exists()
    assert "5 are examined" in fruits("check", "-n", "5").output
    missing = fruits("check", str(tmp_path / "missing"))
    assert missing.exit_code == 1
    assert "does not exist. Point FRUITS_SOURCE at" in missing.output


def test_status_of_an_empty_lake_has_no_line(fruits: Fruits, own: Pipeline):
    shutil.rmtree(own.lake.base)
    shown = fruits("status")
    assert shown.exit_code == 0
    assert "features" not in shown.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_says_so(
    fruits: Fruits, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    # As Python has it for Ctrl-C; what the command does not handle itself passes unnoticed.
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: lambda *_: None}
    before = [signal.signal(one, own[one]) for one in ENDS]
    monkeypatch.setattr(Lake, "folders", lambda _: signal.raise_signal(number))
    try:
        shown = fruits("status")
    finally:
        for one, handler in zip(ENDS, before, strict=True):
            signal.signal(one, handler)
    assert shown.exit_code == 1
    assert "interrupted. What is finished is kept" in shown.output


def test_history_shows_every_version_and_which_is_current(fruits: Fruits, own: Pipeline):
    (own.source / BANANA).unlink()
    assert own.run().success
    shown = fruits("history")
    assert shown.exit_code == 0
    newest, oldest = shown.output.splitlines()[1:]
    assert newest.endswith("<- current")
    assert newest.split()[:2] == ["1", own.lake.current("pca_features").version]
    assert " 89 " in newest
    assert " 90 " in oldest
    assert len(fruits("history", "pca_features", "--limit", "1").output.splitlines()) == 2
    unknown = fruits("history", "nothing")
    assert unknown.exit_code == 1
    assert "has no table 'nothing'" in unknown.output


def test_rollback_publishes_an_earlier_version_with_all_that_it_was_made_from(
    fruits: Fruits, own: Pipeline
):
    before = {name: own.lake.current(name).version for name in ("features", "pca_features")}
    rows = own.lake.current("pca_features").arrow(["path", "components"]).sort_by("path")
    (own.source / BANANA).unlink()
    assert own.run().success
    assert own.lake.current("pca_features").rows == 89
    done = fruits("rollback", "0")
    assert done.exit_code == 0, done.output
    assert "The next run goes forward again" in done.output
    assert {name: own.lake.current(name).version for name in before} == before
    assert own.lake.current("raw_images").rows == 90
    again = own.lake.current("pca_features").arrow(["path", "components"]).sort_by("path")
    assert again.equals(rows)
    assert own.run().success
    assert own.lake.current("pca_features").rows == 89
    unknown = fruits("rollback", "77")
    assert unknown.exit_code == 1
    assert "pca_features has no version '77'" in unknown.output


def test_a_plan_shows_names_that_a_terminal_would_obey(tmp_path: Path):
    hostile = frozenset({"a\x1b[1A\x1b[2K.jpg", "b\r  c.jpg", "d\u202egpj.exe"})
    shown = cli._planned(Lake.at(str(tmp_path / "lake")), Plan(paths=hostile, source=hostile))
    assert len(shown.splitlines()) == 9
    assert not {"\x1b", "\r", "\u202e"} & set(shown)


def test_a_dry_run_shows_what_would_go_and_changes_nothing(fruits: Fruits, own: Pipeline):
    before = files_of(own.lake)
    shown = fruits("erase", BANANA, "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert shown.output.count(f"  {BANANA}\n") == 2, "in the lake, and in the source"
    assert "Nothing was changed" in shown.output
    assert files_of(own.lake) == before
    assert (own.source / BANANA).exists()


def test_erase_leaves_nothing_and_names_nothing_to_dagster(
    fruits: Fruits, own: Pipeline, tmp_path: Path
):
    texts, blobs = evidence(own.lake, BANANA)
    done = fruits("erase", BANANA)
    assert done.exit_code == 0, done.output
    assert "Erased: 1 rows of the lake and 1 files of the source." in done.output
    assert traces(files_of(own.lake), texts=texts, blobs=blobs) == []
    assert not (own.source / BANANA).exists()
    stored = [file.read_bytes() for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert stored
    assert not [content for content in stored if BANANA.encode() in content]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["erase", "misspelt.jpg"], "some names match no file"),
        (["erase"], "nothing is named to be erased"),
        (["erase", "--label", "Bananas", "--dry-run"], "labels number 1 of 1"),
    ],
)
def test_erase_refuses_in_a_sentence(
    fruits: Fruits, own: Pipeline, arguments: list[str], said: str
):
    before = files_of(own.lake)
    refused = fruits(*arguments)
    assert refused.exit_code == 1
    assert said in refused.output
    assert "Traceback" not in refused.output
    assert files_of(own.lake) == before


def test_an_erasure_that_fails_says_why(fruits: Fruits, own: Pipeline):
    shutil.rmtree(Path(own.lake.base, "features"))  # nothing is made again but the photos
    note = Path(own.lake.base, "note.txt")
    note.write_text(f"see {BANANA}")
    failed = fruits("erase", BANANA)
    assert failed.exit_code == 1
    assert "the erasure is not complete" in failed.output
    assert str(note) in failed.output
    note.unlink()
    assert fruits("erase").exit_code == 0, "what was interrupted is finished"
    assert own.lake.current("raw_images").rows == 89


def test_a_version_that_an_erasure_removed_cannot_come_back(fruits: Fruits, own: Pipeline):
    assert erase(own, paths=[BANANA]).success
    refused = fruits("rollback", "0")
    assert refused.exit_code == 1
    assert "erasure" in refused.output
    assert len(rows_of(own.lake, "raw_images", "path")) == 89


def test_a_lake_that_overlaps_its_source_is_refused(
    fruits: Fruits, own: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FRUITS_LAKE", str(own.source / "lake"))
    refused = fruits("erase", BANANA, "--dry-run")
    assert refused.exit_code == 1
    assert "overlap" in refused.output


def test_repair_reads_the_lake_and_removes_only_what_is_damaged(fruits: Fruits, own: Pipeline):
    whole = fruits("repair")
    assert whole.exit_code == 0
    assert "is whole" in whole.output
    part = Path(own.lake.base, "features", own.lake.current("features").files[0].name)
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    before = files_of(own.lake)
    found = fruits("repair")
    assert found.exit_code == 1
    assert f"{part}: its checksum differs. It is removed." in found.output
    assert before.keys() - files_of(own.lake).keys() == {str(part)}


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fruits:
    """Types `fruits plan` as somebody who has set nothing, and has no credentials."""
    for name in [it for it in os.environ if it.startswith(("FRUITS_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return lambda *options, **settings: CliRunner().invoke(
        cli.main, ["plan", "--cores", "2", *options], env=settings
    )


ROW = r"^ *([\d,]+)  (local|emr|emr-serverless) +([\d.,]+) +([\d.,]+) +([\d.,]+) "


def test_plan_prices_three_sizes_in_three_places_and_advises_one_for_each(priced: Fruits):
    shown = priced()
    assert shown.exit_code == 0, shown.output
    rows = re.findall(ROW, shown.output, re.MULTILINE)
    sizes = ("10,000", "1,000,000", "100,000,000")
    places = ("local", "emr", "emr-serverless")
    assert [row[:2] for row in rows] == list(itertools.product(sizes, places))
    taken = re.findall(r"^ +Take ([\w-]+): ", shown.output, re.MULTILINE)
    assert taken == ["local", "local", "emr"]
    assert "photos of 100 kB, eu-west-3, 2 cores here" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 115
    starts = [it.start(2) for row in shown.output.splitlines() if (it := re.match(ROW, row))]
    assert len(starts) == 9
    assert len(set(starts)) == 1, "aligned"


def test_plan_prices_what_it_is_asked_for(priced: Fruits):
    sizes = ("--photos", "5000", "--photos", "70000")
    shown = priced(*sizes, "--kilobytes", "2000", "--region", "eu-north-1")
    rows = re.findall(ROW, shown.output, re.MULTILINE)
    assert {row[0] for row in rows} == {"5,000", "70,000"}
    assert "photos of 2000 kB, eu-north-1, 2 cores here" in shown.output
    small = re.findall(ROW, priced("--photos", "5000").output, re.MULTILINE)
    assert float(rows[1][3]) > float(small[1][3])


def test_plan_shows_what_each_price_is_made_of(priced: Fruits):
    shown = priced("--photos", "1000000", "--items")
    totals = dict(re.findall(r"1,000,000  (emr\S*) +[\d.]+ +([\d.]+)", shown.output))
    items = re.findall(r"^ +run +.*? ([\d.]+|-) +([\d.]+|-)$", shown.output, re.MULTILINE)
    assert len(items) == 6
    for place, column in zip(totals, zip(*items, strict=True), strict=True):
        total = sum(float(eur) for eur in column if eur != "-")
        assert total == pytest.approx(float(totals[place]), abs=0.006)
    for label in ("key in KMS", "interface endpoint of EMR", "photos and lake in S3", "upload"):
        assert label in shown.output


def test_plan_names_the_setting_that_refuses(priced: Fruits):
    shown = priced("--photos", "1000000", FRUITS_EMR_MAX_COST_EUR="1.5")
    assert re.search(r"  emr  .*FRUITS_EMR_MAX_COST_EUR of 1.5$", shown.output, re.MULTILINE)
    assert not re.search(r"  local  .*FRUITS", shown.output)
    assert "  FRUITS_EMR" not in priced("--photos", "1000000").output


def test_plan_minds_the_settings(priced: Fruits):
    settings = {"FRUITS_EMR_RELEASE": "emr-7.13.0", "FRUITS_REGION": "eu-south-1"}
    shown = priced("--photos", "1000000", "--items", **settings)
    assert "eu-south-1" in shown.output
    assert "endpoint" not in shown.output
    arm, x86 = (
        priced("--photos", "1000000", FRUITS_EMR_ARCHITECTURE=it).output
        for it in ("arm64", "x86_64")
    )
    assert arm != x86


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (["--region", "us-east-1"], {}, "'us-east-1' is not in the European Union"),
        ([], {"FRUITS_EMR_MAX_CORES": "many"}, "FRUITS_EMR_MAX_CORES"),
        ([], {"FRUITS_EMR_PRICES": "nowhere.json"}, "the prices in nowhere.json cannot be read"),
        (["--photos", "0"], {}, "0 is not in the range"),
        (["--kilobytes", "nan"], {}, "'nan' is not a valid integer"),
    ],
)
def test_plan_refuses_in_a_sentence(
    priced: Fruits, options: list[str], settings: dict[str, str], said: str
):
    shown = priced(*options, **settings)
    assert shown.exit_code != 0
    assert said in shown.output
    assert "Traceback" not in shown.output


def test_plan_needs_neither_spark_nor_aws(tmp_path: Path):
    program = (
        "import sys; from fruits_assets.cli import main\n"
        "try: main(['plan', '--photos', '10000'])\n"
        "finally: print({'pyspark', 'boto3', 'deltalake'} & set(sys.modules))"
    )
    own = {name: it for name, it in os.environ.items() if not name.startswith(("AWS_", "FRUITS_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**own, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Take local: " in done.stdout
    assert done.stdout.rstrip().endswith("set()")
    assert not list(tmp_path.iterdir()), "a forecast makes no lake"
