"""The lake's face to Dagster: what assets pass to each other."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from fruits_assets.lake.resource import LakeResource, told
from fruits_assets.storage.snapshot import Snapshot

COLUMNS: Mapping[str, str] = {
    "path": "Path of the photo, relative to the source.",
    "split": "Training, Test or Validation: the first folder with such a name.",
    "label": "Class of the fruit: by default, the name of the folder that holds the photo.",
    "sha256": "SHA-256 of the original file.",
    "content": "The photo without its metadata; its pixels are unchanged.",
    "content_sha256": "SHA-256 of `content`.",
    "format": "Image format, detected from the content and not from the file name.",
    "width": "Width of the upright photo, in pixels.",
    "height": "Height of the upright photo, in pixels.",
    "orientation": "EXIF orientation, 1 to 8.",
    "bytes": "Size of the original file, in bytes.",
    "modified_at": "Time of the last change of the original file.",
    "reason": "Why the file was rejected, as one word.",
    "detail": "What is wrong with the file, and what to do about it.",
    "features": "Output of MobileNetV2 without its top layer, float32.",
    "components": "Principal components, by descending explained variance, float32.",
}
"""Descriptions of the columns, for every table that has them."""


class LakeIOManager(dg.ConfigurableIOManager):
    """Publishes snapshots to the lake and hands the current ones to the assets downstream."""

    lake: dg.ResourceDependency[LakeResource]

    def load_input(self, context: dg.InputContext) -> Snapshot:
        """The current version of the upstream asset. Raises dg.Failure where there is none."""
        with told():
            return self.lake.open().current(context.asset_key.to_user_string())

    def handle_output(self, context: dg.OutputContext, obj: Snapshot) -> None:
        """Publishes a snapshot and shows what it is."""
        with told():
            published = self.lake.open().publish(obj)
        context.add_output_metadata({**snapshot_metadata(obj), "number": published.number})


def snapshot_metadata(snapshot: Snapshot) -> dict[str, Any]:
    """What every snapshot shows in the UI."""
    columns = [
        dg.TableColumn(column.name, str(column.type), COLUMNS.get(column.name))
        for column in snapshot.schema
    ]
    return {
        **snapshot.folder.storage.described(),
        "uri": dg.MetadataValue.path(snapshot.uri),
        "version": snapshot.version,
        "size_bytes": snapshot.bytes,
        "files": len(snapshot.files),
        "seconds": snapshot.commit.seconds,
        "made_by_run": dg.MetadataValue.dagster_run(snapshot.commit.run_id),
        "dagster/row_count": snapshot.rows,
        "dagster/column_schema": dg.TableSchema(columns),
    }
