"""The pipeline as a library: components and nearest neighbours of new photos, without a run.

What a run computed is applied by the very code that the run used: `examine`, `pixels`, LiteRT and
`PcaModel`. Neither Spark nor Dagster nor TensorFlow is needed (docs/library.md).
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from queue import LifoQueue

import numpy as np
import pyarrow as pa

from fruits_assets.core import images
from fruits_assets.core.decoder import Decoder
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.images import RejectedImage
from fruits_assets.core.mobilenet import DESCRIPTION, MODEL, FeatureExtractor, ModelDescription
from fruits_assets.core.pca import FILE as PCA
from fruits_assets.core.pca import FeatureSpace, PcaModel
from fruits_assets.lake.lake import Lake
from fruits_assets.sources.layout import ALL, AUTO, TRAINING
from fruits_assets.storage.snapshot import DRAFT, Snapshot

BLOCK_ROWS = 512
"""Photos that distances are computed to at a time: their components stay in a core's cache."""


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
    """Photos whose components are known, n of them.

    Attributes:
        components: (n, k) float32.
        rows: (n,) integers, where they stand in `photos`.
        photos: `path` and `label` (dictionary-encoded) of these photos, and of others.
    """

    components: np.ndarray
    rows: np.ndarray
    photos: pa.Table

    @classmethod
    def read(cls, pca_features: Snapshot, *, split: str) -> Index:
        """The photos of one split.

        Args:
            pca_features: to read.
            split: its name, `all`, or `auto`: Training where there is one, else all.

        Raises:
            DatasetError: there is no such split, or a file is missing or damaged.
        """
        photos = pca_features.arrow(["path", "label", "split"])
        chosen = _chosen(photos.column("split"), split)
        width = pca_features.figures["components"]
        components = np.empty((np.count_nonzero(chosen), width), np.float32)
        row = filled = 0
        for file in pca_features.files:
            for batch in pca_features.batches(file, ["components"]):
                # `to_numpy` would import pandas, 80 MB of memory that nothing else needs.
                values = np.from_dlpack(batch.column("components").flatten())
                kept = values.reshape(-1, width)[chosen[row : row + batch.num_rows]]
                components[filled : filled + len(kept)] = kept
                row, filled = row + batch.num_rows, filled + len(kept)
        labels = photos.column("label").dictionary_encode()
        named = photos.select(["path"]).append_column("label", labels).combine_chunks()
        return cls(components, np.flatnonzero(chosen), named)

    def nearest(self, components: np.ndarray, count: int) -> list[Neighbour]:
        """The photos nearest to (k,) components, nearest first."""
        squares = np.empty(len(self.components), np.float32)
        for start in range(0, len(squares), BLOCK_ROWS):
            # Differences first: from squares and products, small distances would be rounding only.
            offsets = self.components[start : start + BLOCK_ROWS] - components
            np.einsum("nk,nk->n", offsets, offsets, out=squares[start : start + BLOCK_ROWS])
        count = min(count, len(squares))
        found = np.argpartition(squares, count - 1)[:count]
        return [self._neighbour(i, float(squares[i])) for i in found[np.argsort(squares[found])]]

    def _neighbour(self, i: int, square: float) -> Neighbour:
        label, path = (self.photos.column(it)[self.rows[i]].as_py() for it in ("label", "path"))
        return Neighbour(label, path, math.sqrt(square))


def _chosen(splits: pa.ChunkedArray, split: str) -> np.ndarray:
    """(n,) bool, whether a photo is in a split. Raises DatasetError where none is."""
    found = set(splits.unique().to_pylist())
    if split == ALL or (split == AUTO and TRAINING not in found):
        return np.ones(len(splits), bool)
    chosen = TRAINING if split == AUTO else split
    if chosen not in found:
        names = ", ".join(sorted(one for one in found if one)) or "none"
        raise DatasetError(
            f"split is {chosen!r}, but no photo of pca_features is in that split (splits found: "
            f"{names}). Choose one of those, `all` or `auto`."
        )
    return np.array(splits.to_pylist(), object) == chosen


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

    It never changes: once `is_current` says no, load another one.

    Attributes:
        lineage: the versions in use. Only components of the same `pca_model` may be compared.
        pca: the fitted PCA.
    """

    def __init__(self, lake: Lake, *, split: str = AUTO, decoder: Decoder | None = None) -> None:
        self._lake = lake
        self._split = split
        self._decoder = decoder or images
        self._seen = _published(lake)  # first: what is published from here on makes it outdated
        self.lineage = Lineage.of(lake)
        self.pca = PcaModel.from_npz(self.lineage.pca_model.read(PCA))
        weights = self.lineage.model_weights
        self._size = ModelDescription.from_json(weights.read(DESCRIPTION)).image_size
        self._extract = _Extractors(weights.read(MODEL))
        self._indexing = threading.Lock()
        self._index: Index | None = None

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
        accepted = self._decoder.examine(photo, max_pixels=limits["max_pixels"])
        return self._decoder.pixels(
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

    def _read_index(self) -> Index:
        pca_features = self.lineage.pca_features
        if pca_features is None:
            raise DatasetError(
                f"the lake {self._lake.base} had no pca_features when it was loaded, so there is "
                "nothing to compare a photo with. Materialise pca_features, then load again."
            )
        return Index.read(pca_features, split=self._split)


def _published(lake: Lake) -> tuple[str, int]:
    """Which table the lineage starts from, and the number of its last commit."""
    projected = lake.table("pca_features").latest()
    if projected != DRAFT:
        return "pca_features", projected
    return "pca_model", lake.table("pca_model").latest()
