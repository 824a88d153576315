"""The lake's face to Dagster: what assets pass to each other."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from fruits_assets.core.dataset import Dataset
from fruits_assets.core.storage import storage_of
from fruits_assets.lake.resource import LakeResource, told

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
    """Publishes datasets to the lake and hands the current ones to the assets downstream."""

    lake: dg.ResourceDependency[LakeResource]

    def load_input(self, context: dg.InputContext) -> Dataset:
        """The current dataset of the upstream asset. Raises dg.Failure where there is none."""
        with told():
            return self.lake.open().current(context.asset_key.to_user_string())

    def handle_output(self, context: dg.OutputContext, obj: Dataset) -> None:
        """Publishes a dataset and shows what it is."""
        with told():
            self.lake.open().publish(obj)
        context.add_output_metadata(dataset_metadata(obj))


def dataset_metadata(dataset: Dataset) -> dict[str, Any]:
    """What every dataset shows in the UI."""
    manifest = dataset.manifest
    metadata: dict[str, Any] = {
        **storage_of(dataset.uri).described(),
        "uri": dg.MetadataValue.path(dataset.uri),
        "version": dataset.version,
        "size_bytes": manifest.bytes,
        "files": len(manifest.files),
        "seconds": manifest.seconds,
        "made_by_run": dg.MetadataValue.dagster_run(manifest.run_id),
    }
    if manifest.schema:
        columns = [
            dg.TableColumn(name, kind, COLUMNS.get(name)) for name, kind in manifest.schema.items()
        ]
        metadata["dagster/row_count"] = manifest.rows
        metadata["dagster/column_schema"] = dg.TableSchema(columns)
    return metadata
