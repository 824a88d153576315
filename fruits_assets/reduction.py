"""The pipeline as a library: components and nearest neighbours of new photos, without a run.

What a run computed is applied by the very code that the run used: `examine`, `pixels`, LiteRT and
`PcaModel`. Neither Spark nor Dagster nor TensorFlow is needed (docs/library.md).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from queue import LifoQueue

import numpy as np
import pyarrow as pa

from fruits_assets.core import images, inverted_file
from fruits_assets.core.decoder import Decoder
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.images import RejectedImage
from fruits_assets.core.inverted_file import CELL, CELLS, InvertedFile
from fruits_assets.core.mobilenet import DESCRIPTION, MODEL, FeatureExtractor, ModelDescription
from fruits_assets.core.pca import FILE as PCA
from fruits_assets.core.pca import FeatureSpace, PcaModel
from fruits_assets.lake.lake import Lake
from fruits_assets.sources.layout import ALL, AUTO, TRAINING
from fruits_assets.storage.parquet import File
from fruits_assets.storage.snapshot import DRAFT, Snapshot

PHOTO = ["path", "label", "split"]
"""What is known of a photo beside its components."""


@dataclass(frozen=True)
class Neighbour:
    """A photo of the lake, and how far it is.

    Attributes:
        label: its class; None where it has none.
        path: relative to the source, as `raw_images` has it.
        distance: Euclidean, between components.
    """

    label: str | None
    path: str
    distance: float


@dataclass(frozen=True)
class Lineage:
    """Versions that were made from each other, and so speak of the same components.

    What is current of each asset need not be: a run that was interrupted leaves new weights beside
    an old PCA.

    Attributes:
        raw_images: that the features were computed of; holds what is taken for a photo.
        model_weights: that computed them.
        features: the features.
        pca_model: fitted on features of the same weights.
        pca_features: the features as its components; None where the lake has none.
    """

    raw_images: Snapshot
    model_weights: Snapshot
    features: Snapshot
    pca_model: Snapshot
    pca_features: Snapshot | None

    @classmethod
    def of(cls, lake: Lake) -> Lineage:
        """That of the current `pca_features`, or of the current `pca_model` where it is missing.

        Raises:
            DatasetError: the lake has neither, a version that one was made from is missing or
                damaged, or they were made with different weights.
        """
        projected = lake.find("pca_features")
        if projected:
            pca_model = lake.made_from(projected, "pca_model")
        else:
            pca_model = lake.current("pca_model")
        features = fitted = lake.made_from(pca_model, "features")
        if projected:
            features = lake.made_from(projected, "features")
            _check_space(features, fitted, made=projected)
        return cls(
            raw_images=lake.made_from(features, "raw_images"),
            model_weights=lake.made_from(features, "model_weights"),
            features=features,
            pca_model=pca_model,
            pca_features=projected,
        )

    @property
    def versions(self) -> Mapping[str, str]:
        """Version by asset."""
        return {
            name: snapshot.version for name, snapshot in vars(self).items() if snapshot is not None
        }


def _check_space(features: Snapshot, fitted: Snapshot, *, made: Snapshot) -> None:
    """Refuses components of features that their PCA was not fitted on the like of."""
    if FeatureSpace.of(features.commit) != FeatureSpace.of(fitted.commit):
        raise DatasetError(
            f"{made.name} {made.version} mixes features that cannot be compared: it projects those "
            f"of {_told(features)} onto a PCA of those of {_told(fitted)}. Materialise pca_model "
            "with `force: true` in its config, then pca_features."
        )


def _told(features: Snapshot) -> str:
    code, weights, reduced = FeatureSpace.of(features.commit)
    decoding = "reduced" if reduced else "full"
    return f"model_weights {weights} ({decoding} decoding, code {code})"


@dataclass(frozen=True)
class Index:
    """Photos whose components are known, n of them, and what is needed to follow the lake.

    Attributes:
        split: whose photos these are; None for all.
        components: (n, k) float32, sorted for the search.
        rows: (n,) int32, where they stand in `photos`.
        photos: `path`, `label` and `split` (both dictionary-encoded) of these photos, and of
            others.
        parts: name of a part of `pca_features` -> its first row in `photos`.
        cells: name of a part of `_cells` -> the part of `pca_features` that it is for, and the
            cells of its rows.
    """

    split: str | None
    components: InvertedFile
    rows: np.ndarray
    photos: pa.Table
    parts: Mapping[str, int]
    cells: Mapping[str, tuple[str, np.ndarray]]

    @classmethod
    def read(cls, pca_features: Snapshot, *, split: str, known: Index | None = None) -> Index:
        """The photos of one split.

        Args:
            pca_features: to read.
            split: its name, `all`, or `auto`: Training where there is one, else all.
            known: what was read of another version: only parts that it does not know are read.

        Raises:
            DatasetError: there is no such split, or a file is missing or damaged.
        """
        photos = _photos(pca_features, known)
        chosen = _chosen(photos["split"].unique().to_pylist(), split)
        if known and known.split != chosen:
            return cls.read(pca_features, split=split)
        rows = np.arange(len(photos), dtype=np.int32)
        if chosen is not None:
            rows = rows[_is(photos["split"], chosen)]
        parts = _starts(pca_features.files)
        cells = _cells(pca_features, known) if len(rows) > inverted_file.EXACT_PHOTOS else {}
        numbers = np.zeros(len(photos), CELL)
        for part, found in cells.values():
            numbers[parts[part] : parts[part] + len(found)] = found
        width = pca_features.figures["components"]
        blocks = _components(pca_features, rows, known)
        components = InvertedFile.filled(numbers[rows], width, blocks)
        return cls(chosen, components, rows, photos, parts, cells)

    def nearest(self, components: np.ndarray, count: int) -> list[Neighbour]:
        """The photos nearest to (k,) components, nearest first."""
        positions, squares = self.components.nearest(components, count)
        found = zip(self.rows[positions], squares, strict=True)
        return [self._neighbour(row, float(square)) for row, square in found]

    def components_of(self, part: str, rows: int, places: np.ndarray) -> np.ndarray:
        """(m, k) float32 components of a known part of `rows` rows, in its order.

        Args:
            part: its name.
            rows: how many it has, those of other splits too.
            places: `components.places()`.
        """
        first = self.parts[part]
        start, stop = np.searchsorted(self.rows, [first, first + rows])
        return self.components.rows[places[start:stop]]

    def _neighbour(self, row: int, square: float) -> Neighbour:
        label, path = (self.photos.column(it)[row].as_py() for it in ("label", "path"))
        return Neighbour(label, path, math.sqrt(square))


def _is(column: pa.ChunkedArray, value: str) -> np.ndarray:
    """(n,) bool: which rows of a dictionary-encoded column have a value."""
    found = column.unify_dictionaries().combine_chunks()
    number = found.dictionary.to_pylist().index(value)
    return np.from_dlpack(found.indices) == number


def _starts(files: Sequence[File]) -> Mapping[str, int]:
    """Name of each part -> the first of its rows, where all follow each other."""
    starts = [0, *accumulate(file.rows for file in files)]
    return {file.name: start for file, start in zip(files, starts, strict=False)}


def _photos(pca_features: Snapshot, known: Index | None) -> pa.Table:
    """`PHOTO` of all parts, in order; labels and splits are dictionary-encoded."""
    old = known.parts if known else {}
    files = tuple(file for file in pca_features.files if file.name not in old)
    new, starts = replace(pca_features, files=files).arrow(PHOTO), _starts(files)
    tables = [new.slice(0, 0)]
    for file in pca_features.files:
        if known and file.name in old:
            first = old[file.name]
            # A copy: a slice would keep the paths of photos that are gone in memory.
            table = known.photos.take(np.arange(first, first + file.rows))
            tables.append(table.cast(new.schema))
        else:
            tables.append(new.slice(starts[file.name], file.rows))
    table = pa.concat_tables(tables).combine_chunks()
    for name in ("label", "split"):
        # Null is an entry like others, so that the indices have none: NumPy reads them as they are.
        encoded = table.column(name).dictionary_encode(null_encoding="encode")
        table = table.set_column(table.schema.get_field_index(name), name, encoded)
    return table.combine_chunks()


def _components(
    pca_features: Snapshot, rows: np.ndarray, known: Index | None
) -> Iterator[np.ndarray]:
    """(m, k) float32 components of all parts, in order; of the photos at some rows only."""
    places = known.components.places() if known else np.empty(0, np.int32)
    width, first = pca_features.figures["components"], 0
    for file in pca_features.files:
        if known and file.name in known.parts:
            yield known.components_of(file.name, file.rows, places)
            first += file.rows
            continue
        for batch in pca_features.batches(file, ["components"]):
            # `to_numpy` would import pandas, 80 MB of memory that nothing else needs.
            values = np.from_dlpack(batch.column("components").flatten()).reshape(-1, width)
            start, stop = np.searchsorted(rows, [first, first + batch.num_rows])
            yield values[rows[start:stop] - first]
            first += batch.num_rows


def _cells(pca_features: Snapshot, known: Index | None) -> Mapping[str, tuple[str, np.ndarray]]:
    """The cells of all photos, as `Index.cells`: empty where there are none."""
    found = pca_features.siblings.get(CELLS)
    if found is None:
        return {}
    old, centroids = known.cells if known else {}, found.figures.get("centroids")
    cells = {file.name: old[file.name] for file in found.files if file.name in old}
    new = tuple(file for file in found.files if file.name not in {*old, centroids})
    for row in replace(found, files=new).arrow_with_parts(["name", "content"]).to_pylist():
        cells[row["part"]] = row["name"], np.frombuffer(row["content"], CELL)
    return cells


def _chosen(splits: Collection[str | None], split: str) -> str | None:
    """The name of a split, None for all. Raises DatasetError where no photo is in it."""
    if split == ALL or (split == AUTO and TRAINING not in splits):
        return None
    chosen = TRAINING if split == AUTO else split
    if chosen not in splits:
        names = ", ".join(sorted(one for one in splits if one)) or "none"
        raise DatasetError(
            f"split is {chosen!r}, but no photo of pca_features is in that split (splits found: "
            f"{names}). Choose one of those, `all` or `auto`."
        )
    return chosen


class _Extractors:
    """LiteRT for many threads: an interpreter is for one thread at a time.

    As many run at once as there are cores, and other threads wait: more would make each slower,
    and take memory. All but the first are made when they are first needed.
    """

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._idle: LifoQueue[FeatureExtractor | None] = LifoQueue()
        for _ in range((os.cpu_count() or 1) - 1):
            self._idle.put(None)
        self._idle.put(FeatureExtractor(model))

    def __call__(self, seen: np.ndarray) -> np.ndarray:
        """(size, size, 3) uint8 RGB -> (features,) float32."""
        extractor = self._idle.get()
        try:
            extractor = extractor or FeatureExtractor(self._model)
            return extractor(seen)
        finally:
            self._idle.put(extractor)


class Reducer:
    """What a lake holds now, applied to new photos. Any number of threads may share one.

    It never changes: once `is_current` says no, `reload` gives another one.

    Attributes:
        lineage: the versions in use. Only components of the same `pca_model` may be compared.
        pca: the fitted PCA.
    """

    def __init__(
        self,
        lake: Lake,
        *,
        split: str = AUTO,
        decoder: Decoder | None = None,
        known: Reducer | None = None,
    ) -> None:
        self._lake = lake
        self._split = split
        self._decoder = decoder
        self._seen = _published(lake)  # first: what is published from here on makes it outdated
        self.lineage = Lineage.of(lake)
        self.pca = PcaModel.from_npz(self.lineage.pca_model.read(PCA))
        weights = self.lineage.model_weights
        if known and known.lineage.model_weights.version == weights.version:
            self._size, self._extract = known._size, known._extract  # noqa: SLF001 - its own
        else:
            self._size = ModelDescription.from_json(weights.read(DESCRIPTION)).image_size
            self._extract = _Extractors(weights.read(MODEL))
        self._indexing = threading.Lock()
        index = known._index if known else None  # noqa: SLF001 - its own
        self._index = self._read_index(index) if index else None

    @classmethod
    def load(
        cls,
        place: str,
        *,
        region: str | None = None,
        kms_key: str | None = None,
        bucket_owner: str | None = None,
        split: str = AUTO,
        decoder: Decoder | None = None,
    ) -> Reducer:
        """Reads the model and the PCA from a lake; the photos to compare with, on first use.

        Args:
            place: a folder, or `s3://bucket/prefix`.
            region: of the bucket, one in the EU.
            kms_key: as for `Lake.at`; needed only where the same process writes to the bucket.
            bucket_owner: as for `Lake.at`.
            split: whose photos `nearest` finds: the name of a split, `all`, or `auto`: Training
                where there is one, else all.
            decoder: decodes in a process of its own, for photos from strangers; without, it is done
                in this one.

        Raises:
            DatasetError: there is no `pca_model` yet, or something that it was made from is
                missing, damaged or of other weights.
            RegionError: the bucket does not lie in that region, or that not in the EU.
            LakeError: the lake cannot be read, or S3Error.
        """
        lake = Lake.at(place, region=region, kms_key=kms_key, bucket_owner=bucket_owner)
        return cls(lake, split=split, decoder=decoder)

    def pixels(self, photo: bytes) -> np.ndarray:
        """What the network sees of a photo, a whole file: (size, size, 3) uint8 RGB.

        Raises:
            RejectedImage: the run would have rejected the file; `reason` and `detail` say why.
        """
        limits = self.lineage.raw_images.commit.params
        if len(photo) > limits["max_bytes"]:
            raise RejectedImage(
                "too_large",
                f"The file has {len(photo)} bytes and at most {limits['max_bytes']} are accepted; "
                "scale the photo down or raise the limit.",
            )
        decoder = self._decoder or images
        accepted = decoder.examine(photo, max_pixels=limits["max_pixels"])
        return decoder.pixels(
            accepted.content,
            orientation=accepted.orientation,
            size=self._size,
            reduced=self.lineage.features.commit.params["reduced_decoding"],
        )

    def features(self, seen: np.ndarray) -> np.ndarray:
        """The network's features of `pixels`: (d,) float32."""
        return self._extract(seen)

    def components(self, photo: bytes) -> np.ndarray:
        """The principal components of a photo: (k,) float32, as `pca_features` would have them.

        Raises:
            RejectedImage: as `pixels` does.
        """
        return self.pca.transform(self.features(self.pixels(photo))[np.newaxis])[0]

    def nearest(self, photo: bytes | np.ndarray, count: int = 1) -> list[Neighbour]:
        """The photos of the lake that are most like a photo, nearest first.

        Args:
            photo: a whole file, or its (k,) components.
            count: how many, at least 1; fewer come where the split has fewer.

        Raises:
            RejectedImage: as `pixels` does.
            DatasetError: the lake had no `pca_features` when this was loaded, or they are damaged
                or gone, or there is no such split.
            LakeError: the lake cannot be read, or S3Error.
        """
        if count < 1:
            raise ValueError(f"count is {count}; expected at least 1.")
        with self._indexing:  # the first call reads them, and the others wait
            if self._index is None:
                self._index = self._read_index()
        known = photo if isinstance(photo, np.ndarray) else self.components(photo)
        return self._index.nearest(known, count)

    def is_current(self) -> bool:
        """Whether the lake still holds what this was loaded from: lists the log of one table.

        Raises:
            LakeError: the lake cannot be read, or S3Error.
        """
        return _published(self._lake) == self._seen

    def reload(self) -> Reducer:
        """This one while it is current, else another one of what the lake holds now.

        The other one takes over what both have in common: the network, and the photos of parts that
        both versions of `pca_features` list. Where this one has read its photos, the other one
        has read its own when it is returned. Threads go on with this one meanwhile.

        Raises:
            DatasetError, LakeError: as `load` and `nearest` do.
        """
        if self.is_current():
            return self
        return Reducer(self._lake, split=self._split, decoder=self._decoder, known=self)

    def _read_index(self, known: Index | None = None) -> Index:
        pca_features = self.lineage.pca_features
        if pca_features is None:
            raise DatasetError(
                f"the lake {self._lake.base} had no pca_features when it was loaded, so there is "
                "nothing to compare a photo with. Materialise pca_features, then load again."
            )
        return Index.read(pca_features, split=self._split, known=known)


def _published(lake: Lake) -> tuple[str, int]:
    """Which table the lineage starts from, and the number of its last commit."""
    projected = lake.table("pca_features").latest()
    if projected != DRAFT:
        return "pca_features", projected
    return "pca_model", lake.table("pca_model").latest()
