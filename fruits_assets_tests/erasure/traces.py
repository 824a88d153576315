"""What tests of erasures look for, with their own eyes."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.parquet as pq

from fruits_assets.erasure.job import gdpr_erasure
from fruits_assets.lake.lake import Lake
from fruits_assets_tests.conftest import Pipeline


def erase(
    pipeline: Pipeline, instance: dg.DagsterInstance | None = None, **config: Any
) -> dg.ExecuteInProcessResult:
    return gdpr_erasure.execute_in_process(
        resources={
            name: it for name, it in pipeline.resources.items() if name in ("spark", "source")
        },
        run_config={"ops": {"erase": {"config": config}}},
        instance=instance,
        raise_on_error=False,
    )


def traces(files: Mapping[str, bytes], *, texts: list[str], blobs: list[bytes]) -> list[str]:
    """Files in which something is found, in plain or in a column of a Parquet file."""
    found = []
    for name, content in files.items():
        plain = [content]
        if content.startswith(b"PAR1"):
            table = pq.read_table(io.BytesIO(content))
            for column in table.columns:
                plain += [repr(column.to_pylist()).encode()]
        needles = [text.encode() for text in texts] + blobs
        found += [
            f"{name}: {needle[:40]!r}" for needle in needles if any(needle in one for one in plain)
        ]
    return found


def files_of(lake: Lake) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in Path(lake.base).rglob("*") if file.is_file()}


def evidence(lake: Lake, path: str) -> tuple[list[str], list[bytes]]:
    """What could be left of an image: texts, and bytes of its picture and its features."""
    (raw,) = [
        row
        for row in rows_of(lake, "raw_images", "path", "sha256", "content")
        if row["path"] == path
    ]
    (vector,) = [
        row["features"]
        for row in rows_of(lake, "features", "path", "features")
        if row["path"] == path
    ]
    picture = raw["content"]
    features = np.array(vector, np.float32).tobytes()
    middle = len(picture) // 2
    return [path, raw["sha256"]], [picture[middle : middle + 64], features[:256]]


def rows_of(lake: Lake, asset: str, *columns: str) -> list[dict[str, Any]]:
    return lake.current(asset).arrow(columns).to_pylist()
