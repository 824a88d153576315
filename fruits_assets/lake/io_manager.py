"""The lake's face to Dagster: what assets pass to each other."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from fruits_assets.lake.resource import LakeResource, told
from fruits_assets.storage.snapshot import Snapshot

COLUMNS: Mapping[str, str] = {
    "path": "Of the file, relative to the source.",
    "split": "Training, Test or Validation: the first folder named so.",
    "label": "Class of the fruit: the folder that the photo lies in.",
    "sha256": "Of the file as it was found.",
    "content": "The photo itself, without metadata.",
    "format": "By content, whatever the file is called.",
    "width": "Of the upright photo, in pixels.",
    "height": "Of the upright photo, in pixels.",
    "orientation": "What EXIF said, 1 to 8.",
    "bytes": "Size of the file as it was found.",
    "modified_at": "When the file was last changed.",
    "reason": "Why the file is no usable photo, in a word.",
    "detail": "What is wrong with the file, and what to do.",
    "features": "What MobileNetV2 gives before its top.",
    "components": "Principal components, the largest first.",
}
"""What columns hold, in every table that has them."""


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
