"""How a listing differs from an earlier version of `raw_images`, found by Spark.

Files are compared by all that the listings say of them. Where the earlier version is whole, only
parts of the listings are read that one of the two lacks; its photos are looked up only if some are
gone.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Self

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as PySpark's own documentation writes it

from fruits_assets.core.errors import DatasetError
from fruits_assets.sources.listing import LISTING, LISTING_SCHEMA
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.spread import kept, light_rows

UNREAD = "the file cannot be read: "
"""Begins the detail of what may be readable another time."""
CLASSES = "_classes"
"""Table of how many photos each class has in each split."""
NEW, RAW, REJECTED = "new", "raw", "rejected"
"""Kinds of rows: a file to examine; a row of one of the two tables that does not hold any more."""
BLOCK = "block"
"""Column: number of the block of consecutive files of a part of the listing."""
ENTRY = LISTING_SCHEMA.names
CONTENT = [name for name in ENTRY if name != "problem"]
SAME = "exists(now, file -> exists(then, old -> old <=> file.entry))"
ARCHIVED = f"""
    exists(now, file -> file.entry.problem IS NOT NULL AND file.entry.etag IS NOT NULL AND exists(
        then, old -> {" AND ".join(f"old.{name} <=> file.entry.{name}" for name in CONTENT)}))
"""
"""Whether a file that cannot be read now is, by its ETag, the one that was listed before."""
Class = tuple[str | None, str | None]
"""Label and split."""


@dataclass(frozen=True)
class Tallies:
    """Counts of rows of both tables.

    Attributes:
        classes: of photos, by label and split.
        formats: of photos, by format.
        reasons: of rejected files, by reason.
    """

    classes: Counter[Class] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, row: Mapping[str, str | None], number: int) -> None:
        """Adds a number of equal rows."""
        if row["kind"] == RAW:
            self.classes[row["label"], row["split"]] += number
            self.formats[str(row["format"])] += number
        else:
            self.reasons[str(row["reason"])] += number


@dataclass(frozen=True)
class Earlier:
    """An earlier version, or what remains of it.

    Attributes:
        raw: its photos.
        rejected: its rejected files.
        listing: the files that it was made from; None where nobody can tell.
    """

    raw: Snapshot
    rejected: Snapshot
    listing: Snapshot | None

    @classmethod
    def of(cls, raw: Snapshot) -> Self:
        """From `raw_images` with its siblings."""
        try:
            listing = raw.siblings[LISTING].alone()
        except DatasetError:
            listing = None
        return cls(raw, raw.siblings["rejected_images"].alone(), listing)

    @cached_property
    def is_whole(self) -> bool:
        """Whether each of its listed files is in one of its tables, and was read."""
        return (
            self.listing is not None
            and self.listing.rows == self.listing.figures["files"]
            and self.raw.rows == self.raw.figures["images"]
            and self.rejected.rows == self.rejected.figures["rejected"]
            and not self.rejected.commit.provisional
        )

    def rows(self, spark: SparkSession) -> DataFrame:
        """`kind`, `part`, `path`, and columns to count, of all rows of both tables."""
        raw = light_rows(spark, self.raw.alone(), ["path", "label", "split", "format"])
        rejected = light_rows(spark, self.rejected, ["path", "reason", "detail"])
        return raw.withColumn("kind", F.lit(RAW)).unionByName(
            rejected.withColumn("kind", F.lit(REJECTED)), allowMissingColumns=True
        )

    def tallies(self, spark: SparkSession) -> Tallies:
        """Counts of all of its rows."""
        found = Tallies()
        with contextlib.suppress(DatasetError):
            if self.is_whole:
                columns = ["label", "split", "images"]
                for row in self.raw.siblings[CLASSES].arrow(columns).to_pylist():
                    found.classes[row["label"], row["split"]] = row["images"]
                found.formats.update(self.raw.figures["formats"])
                found.reasons.update(self.rejected.figures["reasons"])
                return found
        columns = ["kind", "label", "split", "format", "reason"]
        for row in self.rows(spark).groupBy(*columns).count().collect():
            found.count(row.asDict(), row["count"])
        return found


@dataclass(frozen=True)
class Changes:
    """Files to examine for a listing, and rows of an earlier version that are gone.

    Attributes:
        new: columns of the listing, `kind`, `part`, `block`: the files to examine.
        blocks: part of the listing, block -> how many files of it are to be examined, in order.
        gone: `kind`, `part`, `path`: rows of the earlier version that do not hold any more; None
            where there are none.
        lost: kind, part of the earlier version -> how many rows of it are gone.
        kept: counts of the rows that still hold.
    """

    new: DataFrame
    blocks: Mapping[tuple[str, int], int]
    gone: DataFrame | None = None
    lost: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    kept: Tallies = field(default_factory=Tallies)

    @property
    def files(self) -> int:
        """How many files are to be examined."""
        return sum(self.blocks.values())

    @property
    def removed(self) -> int:
        """How many rows of the earlier version are gone."""
        return sum(sum(parts.values()) for parts in self.lost.values())


@contextlib.contextmanager
def changes(
    spark: SparkSession, listing: Snapshot, earlier: Snapshot | None, *, block: int
) -> Iterator[Changes]:
    """Compares a listing with an earlier version; Spark keeps what it found while this is open.

    Args:
        spark: where to run.
        listing: a version of `_listing`.
        earlier: a version of `raw_images` with its siblings, if there is one.
        block: files in a block of the listing.
    """
    if earlier is None:
        rows = _placed(light_rows(spark, listing, ENTRY), block)
        yield Changes(rows, _all_blocks(listing, block))
        return
    before = Earlier.of(earlier)
    with contextlib.ExitStack() as open_:
        differing = open_.enter_context(kept(_differing(spark, listing, before)))
        blocks, had, archived = _counted(differing, block)
        if archived:
            paths = light_rows(spark, before.raw.alone(), ["path"]).select("path")
            accepted = differing.where("archived").join(paths, "path", "left_semi").select("path")
            resolved = differing.join(accepted.distinct(), "path", "left_anti")
            differing = open_.enter_context(kept(resolved))
            blocks, had, _ = _counted(differing, block)
        new = _placed(differing.where("part IS NOT NULL"), block)
        tallies = before.tallies(spark)
        if before.is_whole and not had:
            yield Changes(new, blocks, kept=tallies)
            return
        gone = open_.enter_context(kept(_gone(spark, listing, before, differing)))
        columns = ["kind", "part", "label", "split", "format", "reason"]
        lost: dict[str, Counter[str]] = defaultdict(Counter)
        for row in gone.groupBy(*columns).count().collect():
            lost[row.kind][row.part] += row["count"]
            tallies.count(row.asDict(), -row["count"])
        yield Changes(new, blocks, gone.select("kind", "part", "path"), lost, tallies)


def _differing(spark: SparkSession, listing: Snapshot, before: Earlier) -> DataFrame:
    """Files of either listing that the other says something else of.

    Returns:
        `path`; the other columns of the listing, `part` and `position`, where the file is listed;
        `had`: whether it was listed before; `archived`: whether `ARCHIVED` holds of it.
    """
    shared: set[str] = set()
    if before.listing and before.is_whole:
        shared = listing.by_name.keys() & before.listing.by_name.keys()

    def rows(snapshot: Snapshot, *, now: bool) -> DataFrame:
        files = [file for file in snapshot.files if file.name not in shared]
        return light_rows(spark, snapshot, ENTRY, files=files).withColumn("now", F.lit(now))

    found = [rows(listing, now=True)]
    if before.listing:
        then = rows(before.listing, now=False)
        if not before.is_whole:
            tables = before.rows(spark)
            unread = F.coalesce(F.col("detail").startswith(UNREAD), F.lit(False))  # noqa: FBT003
            then = then.join(tables.where(~unread).select("path"), "path", "left_semi")
        found.append(then.select(*found[0].columns))
    entry = F.struct(*ENTRY)
    file = F.struct(entry.alias("entry"), "part", "position")
    return (
        reduce(DataFrame.union, found)
        .groupBy("path")
        .agg(
            F.collect_list(F.when(F.col("now"), file)).alias("now"),
            F.collect_list(F.when(~F.col("now"), entry)).alias("then"),
        )
        .where(f"NOT {SAME}")
        .select(
            "path",
            F.expr("size(then) > 0").alias("had"),
            F.expr(ARCHIVED).alias("archived"),
            F.explode_outer("now").alias("file"),
        )
        .select(
            "path",
            "had",
            "archived",
            *(F.col(f"file.entry.{name}").alias(name) for name in ENTRY if name != "path"),
            "file.part",
            "file.position",
        )
    )


def _gone(
    spark: SparkSession, listing: Snapshot, before: Earlier, differing: DataFrame
) -> DataFrame:
    """Rows of the earlier version whose file is gone, is another one now, or was not read."""
    changed = differing.select("path").distinct()
    if before.is_whole:
        return before.rows(spark).join(changed, "path", "left_semi")
    still = light_rows(spark, listing, ["path"]).select("path").join(changed, "path", "left_anti")
    return before.rows(spark).join(still, "path", "left_anti")


def _placed(rows: DataFrame, block: int) -> DataFrame:
    """Files of the listing with the block that they lie in."""
    return rows.select(
        *ENTRY, "part", F.lit(NEW).alias("kind"), F.expr(f"position DIV {block}").alias(BLOCK)
    )


def _all_blocks(listing: Snapshot, block: int) -> dict[tuple[str, int], int]:
    return {
        (file.name, number): min(block, file.rows - number * block)
        for file in listing.files
        for number in range(-(-file.rows // block))
    }


def _counted(differing: DataFrame, block: int) -> tuple[dict[tuple[str, int], int], bool, bool]:
    """Files by part and block; whether some were listed before, and whether any is archived."""
    counts = (
        differing.groupBy("part", F.expr(f"position DIV {block}").alias(BLOCK))
        .agg(F.count("*"), F.max("had"), F.max("archived"))
        .collect()
    )
    blocks = {(row[0], row[1]): row[2] for row in counts if row[0] is not None}
    had, archived = (any(row[i] for row in counts) for i in (3, 4))
    return dict(sorted(blocks.items())), had, archived
