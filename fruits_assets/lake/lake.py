"""The lake: a folder or a prefix of a bucket that holds everything the pipeline produces.

<base>/fruits-lake.json          says that it is a lake, and of which format
<base>/<table>/_delta_log/...    the versions of a table
<base>/<table>/part-*.parquet    its parts; a version lists some of them
<base>/deliverables/             files for people
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from fruits_assets.core.errors import ConflictError, DatasetError, LakeError
from fruits_assets.lake import retention
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.table import LOG, Table
from fruits_assets.storage.base import Folder, Storage, is_name, join
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import DRAFT, Commit, Output, Snapshot

MARKER = "fruits-lake.json"
FORMAT = 2
"""Version of the layout: 1 had its own table format, 2 has Delta tables."""
OLD_POINTER = "current.json"
"""What every table of a lake of format 1 has, and none of a later one."""


@dataclass(frozen=True)
class Lake:
    """A lake.

    Attributes:
        folder: that it lies in.
        keep_versions: how many published versions of a table to keep.
    """

    folder: Folder
    keep_versions: int = 3

    @classmethod
    def at(
        cls,
        place: str,
        *,
        region: str | None = None,
        kms_key: str | None = None,
        bucket_owner: str | None = None,
        keep_versions: int = 3,
    ) -> Lake:
        """The lake at a folder or in a bucket, empty or not.

        Args:
            place: a folder, or `s3://bucket/prefix`.
            region: of the bucket, one in the EU.
            kms_key: encrypts what is written to the bucket; S3's own key without.
            bucket_owner: AWS account that must own the bucket; any may without.
            keep_versions: how many published versions of a table to keep.

        Raises:
            RegionError: the bucket does not lie in that region, or that not in the EU.
            S3Error: the bucket cannot be used.
            LakeError: the place is of an unknown kind, or holds a lake of another format.
        """
        folder = folder_at(place, region=region, kms_key=kms_key, bucket_owner=bucket_owner)
        lake = cls(folder, keep_versions)
        if odd := sorted({it for it in lake.base if it in "%\\" or not it.isprintable()}):
            raise LakeError(
                f"the path of the lake, {lake.base!r}, holds {', '.join(map(repr, odd))}, which "
                "libraries that read Delta tables take for something else. Point FRUITS_LAKE at a "
                "path without."
            )
        lake.check_format()
        return lake

    @property
    def base(self) -> str:
        """Absolute path, or `s3://bucket/prefix`."""
        return self.folder.uri

    @property
    def storage(self) -> Storage:
        """Where the lake lies."""
        return self.folder.storage

    def table(self, name: str) -> Table:
        """A table of the lake, which need not exist yet."""
        return Table(name, self.folder.child(name))

    def folders(self) -> list[str]:
        """Names of the folders that hold a table, published or not, sorted."""
        names = [name for name in self.storage.children(self.base) if is_name(name)]
        return [name for name in names if self.table(name).entries()]

    def tables(self) -> list[str]:
        """Names of the tables that have a current version, sorted. Raises DatasetError."""
        return [name for name in self.folders() if self.table(name).newest() is not None]

    def find(self, name: str) -> Snapshot | None:
        """The published version of a table, or None. Raises DatasetError where it is damaged."""
        found = self.table(name).current()
        return None if found is None else self._with_siblings(found.check())

    def current(self, name: str) -> Snapshot:
        """The published version of a table, its parts seen to be there.

        Raises:
            DatasetError: there is none, or it is damaged.
        """
        found = self.find(name)
        if found is None:
            raise DatasetError(f"the lake {self.base} has no {name} yet. Materialise {name} first.")
        return found

    def version(self, name: str, number: int) -> Snapshot:
        """A published version by its number, its parts seen to be there. Raises DatasetError."""
        return self._with_siblings(self.table(name).open(number).check())

    def made_from(self, snapshot: Snapshot, name: str) -> Snapshot:
        """The version of a table that another one was made from.

        Raises:
            DatasetError: the lake does not hold it whole.
        """
        recipe, number = snapshot.commit.inputs.get(name), snapshot.commit.numbers.get(name)
        if recipe and number is not None:
            with contextlib.suppress(DatasetError):
                found = self.version(name, number)
                if found.version == recipe:
                    return found
            # What was damaged is made again as a later version of the same recipe.
            if found := self._whole(name, recipe):
                return found
        raise DatasetError(
            f"{snapshot.name} {snapshot.version} was made from {name} "
            f"{snapshot.commit.inputs.get(name)}, which the lake {self.base} does not hold. Run "
            "the whole pipeline again: it makes what is missing, and computes nothing twice."
        )

    def _with_siblings(self, found: Snapshot) -> Snapshot:
        return replace(found, siblings=_Siblings(self, found.commit))

    def answers(self, recipe: Recipe, name: str) -> Snapshot | None:
        """A whole version of a recipe, or None.

        Where that one is provisional, it is the newest that was made by trying again.
        """
        found = self._whole(name, recipe.version)
        if found is None or not found.commit.provisional:
            return found
        again = (self._whole(name, one.recipe) for _, one in self._made_by(recipe, name))
        return next((one for one in again if one), found)

    def _whole(self, name: str, recipe: str) -> Snapshot | None:
        for number, commit in self.table(name).publishes():
            if commit.recipe == recipe:
                try:
                    found = self.version(name, number)
                    for sibling in found.siblings.values():
                        sibling.check()
                except DatasetError:
                    continue
                return found
        return None

    def _made_by(
        self, recipe: Recipe, name: str, *, grown: Sequence[str] = ()
    ) -> Iterator[tuple[int, Commit]]:
        """Versions that answer the same question, the newest first.

        Args:
            recipe: the question.
            name: of the table that the recipe makes.
            grown: names of the inputs that may differ.
        """
        question = replace(recipe, salt="").question(*grown)
        for number, made in self.table(name).publishes():
            asked = Recipe(made.transform, made.code_version, made.params, made.inputs)
            if asked.question(*grown) == question:
                yield number, made

    def earlier(self, recipe: Recipe, name: str, *, grown: Sequence[str]) -> Snapshot | None:
        """What is whole of the newest version for another state of some inputs, or None.

        Most of what it holds can be taken over: a recipe that is forced to be made again has none.

        Args:
            recipe: of the version that is to be made.
            name: of the table that the recipe makes.
            grown: names of the inputs that may differ.
        """
        if recipe.salt:
            return None
        for number, _ in self._made_by(recipe, name, grown=grown):
            try:
                found = self._with_siblings(self.table(name).open(number)).remains()
            except DatasetError:
                continue
            if found.files or not found.commit.figures:
                return found
        return None

    def unpublished(self, name: str) -> dict[str, int]:
        """Name -> size of the files in a table's folder that no version which is kept lists."""
        table = self.table(name)
        listed = {
            file.name for number in retention.kept(self, name) for file in table.open(number).files
        }
        sizes = table.folder.sizes()
        return {found: size for found, size in sizes.items() if found not in listed}

    def draft(
        self,
        recipe: Recipe,
        outputs: Mapping[str, Output],
        schemas: Mapping[str, pa.Schema],
        *,
        run: str,
        seconds: float,
        follows: Mapping[str, int],
    ) -> Snapshot:
        """What is written and not published yet: the first table, with the others as siblings.

        Args:
            recipe: of all of them.
            outputs: what was written, by table.
            schemas: of the tables, by name; the first leads.
            run: id of the Dagster run.
            seconds: that it took.
            follows: number of the latest version of each table when this one was asked for.
        """
        drafts = {
            name: self._draft(recipe, name, outputs[name], schema, run, seconds, follows[name])
            for name, schema in schemas.items()
        }
        lead, *others = drafts.values()
        provisional = sum(output.provisional for output in outputs.values())
        commit = replace(lead.commit, provisional=provisional)
        return replace(lead, commit=commit, siblings={one.name: one for one in others})

    def _draft(  # noqa: PLR0917 - a constructor
        self,
        recipe: Recipe,
        name: str,
        output: Output,
        schema: pa.Schema,
        run: str,
        seconds: float,
        follows: int,
    ) -> Snapshot:
        commit = Commit(
            recipe=recipe.version,
            transform=recipe.transform,
            code_version=recipe.code_version,
            params=recipe.params,
            inputs=recipe.inputs,
            numbers=recipe.numbers,
            run_id=run,
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            seconds=round(seconds, 3),
            figures=output.figures,
            provisional=output.provisional,
        )
        files = tuple(sorted(output.files, key=lambda file: file.name))
        folder = self.table(name).folder
        return Snapshot(folder, name, schema, DRAFT, commit, files, follows=follows)

    def publish(
        self, draft: Snapshot, *, made_from: Mapping[str, Snapshot] | None = None
    ) -> Snapshot:
        """Makes a version the current one, with its siblings, and removes what is too old.

        Where the current version was made of the same recipe, nothing happens.

        Args:
            draft: what `draft` returned.
            made_from: by name, what it was made from while that was not published yet itself.

        Returns:
            What is current now.

        Raises:
            DatasetError: a part of it is gone.
            ConflictError: another run published since this version was asked for; the parts of
                this one stay, and the other one is current.
            LakeError: the lake cannot be written; readers go on seeing the version before.
        """
        table, given = self.table(draft.name), made_from or {}
        if draft.number != DRAFT and draft.number == table.newest() == draft.follows:
            current = table.commit(draft.number)
            if current and current.recipe == draft.version:
                return draft
        self._mark()
        siblings = {name: self._commit(one, {}, given) for name, one in draft.siblings.items()}
        number = self._commit(draft, siblings, given)
        found = self._with_siblings(table.open(number))
        retention.clean(self, [*siblings, draft.name])
        return found

    def _commit(
        self, draft: Snapshot, siblings: Mapping[str, int], made_from: Mapping[str, Snapshot]
    ) -> int:
        numbers = {
            name: made_from[name].number if name in made_from else number
            for name, number in draft.commit.numbers.items()
        }
        draft = replace(draft, commit=replace(draft.commit, numbers=numbers))
        table = self.table(draft.name)
        found = table.current()
        if (
            found
            and (found.version, found.files) == (draft.version, draft.files)
            and found.commit.siblings == siblings
        ):
            draft.check()
            return found.number
        return table.publish(draft, siblings)

    def withdraw(self, name: str, *, run: str) -> None:
        """Leaves a table without a current version; earlier ones cannot be taken again.

        Raises:
            ConflictError: somebody published meanwhile.
            LakeError: the lake cannot be written.
        """
        table = self.table(name)
        if found := table.current():
            now = datetime.now(UTC).isoformat(timespec="microseconds")
            commit = Commit("", "withdrawn", "", {}, {}, run, now, 0.0)
            table.publish(replace(found, commit=commit, files=(), follows=found.number), {})

    def check_format(self) -> None:
        """Refuses a lake of another format, before anything is read or written.

        Raises:
            LakeError: it is one; its text says what to do.
        """
        names = self.storage.children(self.base)
        if MARKER in names:
            found = self._format()
            if found != FORMAT:
                raise LakeError(
                    f"{self.base} is a lake of format {found}, and this version of the project "
                    f"reads and writes format {FORMAT}. Nothing was changed. Use the version of "
                    "the project that made it, or point FRUITS_LAKE at a new place and run again."
                )
            return
        old = [name for name in names if OLD_POINTER in self._names_in(name)]
        if old:
            raise LakeError(
                f"{self.base} is a lake of the first format ({old[0]}/{OLD_POINTER}), which this "
                "version of the project does not read. Nothing was changed. Point FRUITS_LAKE at a "
                "new place and run again: the features are computed again from the photos. Delete "
                "the old lake when you do not need its versions any more."
            )

    def _names_in(self, name: str) -> Sequence[str]:
        if not is_name(name) or LOG in (children := self.storage.children(join(self.base, name))):
            return ()
        return children

    def _format(self) -> Any:
        try:
            return json.loads(self.folder.read(MARKER))["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{join(self.base, MARKER)} cannot be read ({error!r}). Restore it: "
                f'{{"format": {FORMAT}}} is its content in a lake of this version.'
            ) from error

    def _mark(self) -> None:
        uri = join(self.base, MARKER)
        content = json.dumps({"format": FORMAT, "made_by": "fruits_assets"}).encode()
        try:
            self.storage.swap(uri, content, expected=None)
        except ConflictError:
            self.check_format()


class _Siblings(Mapping[str, Snapshot]):
    """Tables that were made together with another one, opened when they are asked for."""

    def __init__(self, lake: Lake, made: Commit) -> None:
        self._lake, self._recipe, self._numbers = lake, made.recipe, made.siblings
        self._opened: dict[str, Snapshot] = {}

    def __getitem__(self, name: str) -> Snapshot:
        number = self._numbers[name]
        if name not in self._opened:
            found = self._lake.table(name).open(number)
            if found.version != self._recipe:  # its log was damaged, and began again
                raise DatasetError(
                    f"{name} {number} ({found.uri}) was not made together with {self._recipe}. "
                    "Run the whole pipeline again: it makes what is missing."
                )
            self._opened[name] = found
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
