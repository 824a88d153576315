"""What a lake says of its past, and going back to it with all that belongs to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest
from deltalake import DeltaTable

from fruits_assets.core.errors import ConflictError, DatasetError, LakeError
from fruits_assets.lake import retention
from fruits_assets.lake.history import Entry, entries, rollback
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets_tests.conftest import THE_SAME_EVERYWHERE
from fruits_assets_tests.lake.versions import draft, of, publish, rows, seen
from fruits_assets_tests.places import Place
from fruits_assets_tests.s3 import REGION

SIBLINGS = ("rejected_images", "_listing")
CHAIN = ("raw_images", "model_weights", "features", "pca_model", "pca_features")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"))


@dataclass(frozen=True)
class _Run:
    """What a run of the whole pipeline has published."""

    raw: Snapshot
    weights: Snapshot
    features: Snapshot
    model: Snapshot
    projected: Snapshot

    @classmethod
    def of(cls, lake: Lake, number: int, *, earlier: Self | None = None) -> Self:
        """Publishes a version of every table; those of an earlier run keep its PCA."""
        raw = publish(lake, "raw_images", number, siblings=SIBLINGS)
        weights = publish(lake, "model_weights", 0)
        features = publish(lake, "features", number, raw, weights)
        model = earlier.model if earlier else publish(lake, "pca_model", number, features)
        projected = publish(lake, "pca_features", number, features, model)
        return cls(raw, weights, features, model, projected)


def _seen(lake: Lake, names: Sequence[str] = CHAIN) -> dict[str, list[str]]:
    """What readers see of every table; fails where something is mixed."""
    projected = lake.current("pca_features")
    model, features = (lake.current(name) for name in ("pca_model", "features"))
    raw, weights = (lake.current(name) for name in ("raw_images", "model_weights"))
    assert lake.made_from(projected, "pca_model") == model
    assert lake.made_from(projected, "features") == features
    assert lake.made_from(features, "raw_images") == raw
    assert lake.made_from(features, "model_weights") == weights
    fitted_on = lake.made_from(model, "features")
    assert rows(fitted_on) == of("features", fitted_on.figures["number"])
    for name in SIBLINGS:
        assert raw.siblings[name] == lake.current(name)
    return {name: seen(lake, name) for name in (*names, *SIBLINGS)}


def _all_of(number: int, *, model: int | None = None) -> dict[str, list[str]]:
    found = {name: of(name, number) for name in (*CHAIN, *SIBLINGS)}
    found["pca_model"] = of("pca_model", number if model is None else model)
    return {**found, "model_weights": of("model_weights", 0)}


def _rows(found: Sequence[Entry]) -> list[tuple[int, int | None, bool]]:
    return [(one.number, one.rows, one.is_current) for one in found]


# ------------------------------------------------------------------------------ history


@THE_SAME_EVERYWHERE
def test_the_history_says_what_was_published_when_and_by_whom(place: Place) -> None:
    lake = Lake.at(place.base, region=REGION, keep_versions=2)
    published = [publish(lake, "raw", number) for number in range(3)]
    found = entries(lake, "raw")
    assert _rows(found) == [(2, 2, True), (1, 2, False), (0, None, False)]
    assert [one.commit for one in found] == [snapshot.commit for snapshot in reversed(published)]
    assert {one.commit.run_id for one in found} == {"run"}
    assert _rows(entries(lake, "raw", limit=2)) == [(2, 2, True), (1, 2, False)]


def test_a_version_that_is_published_again_is_an_entry_of_its_own(lake: Lake) -> None:
    for number in (0, 1, 0):
        publish(lake, "raw", number)
    found = entries(lake, "raw")
    assert _rows(found) == [(2, 2, True), (1, 2, False), (0, 2, False)]
    assert found[0].commit.recipe == found[2].commit.recipe


def test_a_withdrawal_is_an_entry_without_rows(lake: Lake) -> None:
    publish(lake, "raw", 0)
    lake.withdraw("raw", run="erasure")
    assert _rows(entries(lake, "raw")) == [(1, None, False), (0, 2, False)]
    assert entries(lake, "raw")[0].commit.run_id == "erasure"
    publish(lake, "raw", 1)
    assert _rows(entries(lake, "raw")) == [(2, 2, True), (1, None, False), (0, None, False)]


def test_a_version_whose_parts_are_partly_gone_has_no_rows(lake: Lake) -> None:
    first = publish(lake, "raw", 0)
    publish(lake, "raw", 1)
    Path(first.uri, first.files[0].name).unlink()
    assert _rows(entries(lake, "raw")) == [(1, 2, True), (0, None, False)]


def test_commits_of_other_software_are_no_entries(lake: Lake) -> None:
    published = publish(lake, "raw", 0)
    DeltaTable(published.uri).optimize.compact()
    assert _rows(entries(lake, "raw")) == [(0, 2, True)]
    publish(lake, "raw", 1)
    assert _rows(entries(lake, "raw")) == [(2, 2, True), (0, 2, False)]


def test_the_history_of_an_unknown_table_names_those_that_are_there(lake: Lake) -> None:
    with pytest.raises(DatasetError) as told:
        entries(lake, "raw")
    assert f"the lake {lake.base} has no table 'raw'. Its tables: none." in str(told.value)
    publish(lake, "features", 0)
    publish(lake, "raw_images", 0)
    with pytest.raises(DatasetError, match=r"no table 'raw'\. Its tables: features, raw_images\."):
        entries(lake, "raw")


# ------------------------------------------------------------------------------ rollback


def test_a_rollback_publishes_all_that_a_version_was_made_from(lake: Lake) -> None:
    first = _Run.of(lake, 1)
    _Run.of(lake, 2)
    assert _seen(lake) == _all_of(2)
    found = rollback(lake, "0")
    assert [(one.name, one.version) for one in found] == [
        ("raw_images", first.raw.version),
        ("model_weights", first.weights.version),
        ("features", first.features.version),
        ("pca_model", first.model.version),
        ("pca_features", first.projected.version),
    ]
    assert [one.number for one in found] == [2, 0, 2, 2, 2]
    assert [one.number for one in found] == [lake.current(one.name).number for one in found]
    assert _seen(lake) == _all_of(1)


@pytest.mark.parametrize("digits", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_a_version_may_be_called_by_its_hash(lake: Lake, digits: int) -> None:
    first = _Run.of(lake, 1)
    _Run.of(lake, 2)
    assert rollback(lake, first.projected.version[:digits])[-1].version == first.projected.version
    assert _seen(lake) == _all_of(1)


def test_a_rollback_writes_no_part(place: Place) -> None:
    lake = Lake.at(place.base, region=REGION)
    first = _Run.of(lake, 1)
    publish(lake, "pca_features", 2, first.features, first.model)
    before = {name for name in place.names() if name.endswith(".parquet")}
    assert rollback(lake, "0")[-1].number == 2
    assert _seen(lake) == _all_of(1)
    assert {name for name in place.names() if name.endswith(".parquet")} == before


def test_what_is_current_already_is_not_published_again_by_a_rollback(lake: Lake) -> None:
    first = _Run.of(lake, 1)
    publish(lake, "pca_features", 2, first.features, first.model)
    found = {one.name: one.number for one in rollback(lake, "0")}
    assert found == {**dict.fromkeys(CHAIN, 0), "pca_features": 2}
    assert {one.name: one.number for one in rollback(lake, "0")} == found


def test_a_rollback_keeps_what_the_pca_was_fitted_on(lake: Lake) -> None:
    """A few photos came after the PCA was fitted: it was fitted on earlier features."""
    first = _Run.of(lake, 1)
    second = _Run.of(lake, 2, earlier=first)
    _Run.of(lake, 3)
    assert _seen(lake) == _all_of(3)
    assert second.projected.commit.inputs["pca_model"] == first.model.version
    rollback(lake, "1")
    assert _seen(lake) == _all_of(2, model=1)
    assert rows(lake.made_from(lake.current("pca_model"), "features")) == of("features", 1)


def test_a_rollback_removes_nothing_that_it_needs(lake: Lake) -> None:
    """As many versions are kept as there are: each publish could make the oldest one go."""
    first = _Run.of(lake, 1)
    _Run.of(lake, 2, earlier=first)
    _Run.of(lake, 3)
    assert lake.keep_versions == 3
    rollback(lake, "1")
    assert _seen(lake) == _all_of(2, model=1)
    found = {path.parent.name for path in Path(lake.base).glob("*/part-*")}
    assert found == {*CHAIN, *SIBLINGS}
    assert [one.rows for one in entries(lake, "pca_features")] == [2, 2, 2, None]


def test_after_a_rollback_the_next_run_goes_forward_again(lake: Lake) -> None:
    for number in (1, 2):
        _Run.of(lake, number)
    rollback(lake, "0")
    again = _Run.of(lake, 2)
    assert _seen(lake) == _all_of(2)
    assert again.projected.number == 3
    assert _rows(entries(lake, "pca_features"))[0] == (3, 2, True)


@pytest.mark.parametrize("version", ["7", "abcd", "0123456789abcdef", "", "x", "-1"])
def test_an_unknown_version_is_refused(lake: Lake, version: str) -> None:
    _Run.of(lake, 1)
    before = _seen(lake)
    with pytest.raises(LakeError) as told:
        rollback(lake, version)
    assert f"pca_features has no version {version!r}" in str(told.value)
    assert "`fruits history pca_features` lists its versions" in str(told.value)
    assert _seen(lake) == before


def test_a_lake_without_a_pca_has_nothing_to_go_back_to(lake: Lake) -> None:
    with pytest.raises(LakeError, match="pca_features has no version '0'"):
        rollback(lake, "0")


def test_a_hash_that_begins_as_another_is_refused(lake: Lake) -> None:
    run = _Run.of(lake, 1)
    for recipe in ("abcd000000000000", "abcd111111111111"):
        made = draft(lake, "pca_features", 1, run.features, run.model)
        lake.publish(replace(made, commit=replace(made.commit, recipe=recipe)))
    with pytest.raises(LakeError) as told:
        rollback(lake, "abcd")
    assert "'abcd' stands for several versions of pca_features" in str(told.value)
    assert "abcd000000000000, abcd111111111111" in str(told.value)
    assert rollback(lake, "abcd0")[-1].version == "abcd000000000000"


def test_a_version_that_retention_has_removed_is_not_called_damaged(lake: Lake) -> None:
    lake = replace(lake, keep_versions=1)
    first = _Run.of(lake, 1)
    for number in (2, 3):
        _Run.of(lake, number)
    before = _seen(lake)
    for version in ("0", first.projected.version):
        with pytest.raises(DatasetError) as told:
            rollback(lake, version)
        text = str(told.value)
        assert f"pca_features {first.projected.version} cannot be taken again: its parts" in text
        assert "have been removed. The lake keeps the last 1 versions of a table" in text
        assert "damaged" not in text
        assert "repair" not in text
    assert _seen(lake) == before


def test_a_version_whose_sources_retention_has_removed_is_refused(lake: Lake) -> None:
    first = _Run.of(lake, 1)
    for number in (2, 3):
        raw = publish(replace(lake, keep_versions=1), "raw_images", number, siblings=SIBLINGS)
        features = publish(replace(lake, keep_versions=1), "features", number, raw, first.weights)
        model = publish(replace(lake, keep_versions=1), "pca_model", number, features)
        publish(lake, "pca_features", number, features, model)
    assert entries(lake, "pca_features")[-1].rows == 2
    before = _seen(lake)
    narrow = replace(lake, keep_versions=1)
    with pytest.raises(DatasetError) as told:
        rollback(narrow, "0")
    text = str(told.value)
    assert f"pca_features {first.projected.version} cannot be taken again: parts of" in text
    assert "which it was made from, have been removed" in text
    assert "damaged" not in text
    assert _seen(lake) == before


def test_a_version_whose_pca_was_fitted_on_what_has_gone_is_refused(lake: Lake) -> None:
    """An erasure fits it again on the same features, as far as they may stay."""
    first = _Run.of(lake, 1)
    _Run.of(lake, 2, earlier=first)
    narrow = replace(lake, keep_versions=2)
    _Run.of(narrow, 3)
    assert retention.clean(narrow, ["features"]) == len(first.features.files)
    before = _seen(lake)
    with pytest.raises(DatasetError) as told:
        rollback(narrow, "1")
    text = str(told.value)
    assert f"pca_model {first.model.version} cannot be taken again: parts of features" in text
    assert _seen(lake) == before


def test_a_version_that_an_erasure_has_withdrawn_is_refused(lake: Lake) -> None:
    first = _Run.of(lake, 1)
    for name in ("pca_features", "pca_model"):
        lake.withdraw(name, run="erasure")
    for version in ("0", first.projected.version, "1"):
        with pytest.raises(LakeError) as told:
            rollback(lake, version)
        assert f"the version {version!r} of pca_features was withdrawn by an erasure" in str(
            told.value
        )
    _Run.of(lake, 2)
    with pytest.raises(LakeError, match="was withdrawn by an erasure, and cannot be taken again"):
        rollback(lake, "0")
    assert _seen(lake) == _all_of(2)


@pytest.mark.parametrize("name", ["pca_features", "features"])
def test_a_version_that_is_damaged_is_called_so(lake: Lake, name: str) -> None:
    first = _Run.of(lake, 1)
    second = _Run.of(lake, 2)
    damaged = first.projected if name == "pca_features" else first.features
    Path(damaged.uri, damaged.files[0].name).unlink()
    with pytest.raises(DatasetError, match=r"Run (`make repair`|the whole pipeline again)"):
        rollback(lake, "0")
    assert lake.current("pca_features") == second.projected
    assert _seen(lake) == _all_of(2)


def test_a_rollback_that_was_overtaken_says_so(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands take a lease; whoever writes without one is noticed all the same."""
    for number in (1, 2):
        run = _Run.of(lake, number)
    publish_it, late = Lake.publish, draft(lake, "features", 3, run.raw, run.weights)

    def overtake(self: Lake, snapshot: Snapshot, **options: object) -> Snapshot:
        if snapshot.name == "features":
            monkeypatch.setattr(Lake, "publish", publish_it)
            self.publish(late)
        return publish_it(self, snapshot, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Lake, "publish", overtake)
    with pytest.raises(ConflictError, match="another run published features"):
        rollback(lake, "0")
    assert seen(lake, "features") == of("features", 3)
    rollback(lake, "0")  # doing it again succeeds
    assert _seen(lake) == _all_of(1)
