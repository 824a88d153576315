"""Figures and pictures of a snapshot that people see in the UI."""

import base64
import io
from typing import Any

import dagster as dg
import numpy as np
from PIL import Image, ImageDraw

from fruits_assets.core.pca import PcaModel
from fruits_assets.deliverables import figures, report
from fruits_assets.deliverables.photos import class_counts, thumbnails
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.pca import MAP, MAP_SCHEMA, MODEL

MAX_REJECTED_SHOWN = 30
SHOWN_WIDTH = 1000
RADIUS = 14
"""Radius of the corners, in pixels: a picture is a card on the ground of either theme."""


def raw_metadata(raw: Snapshot) -> dict[str, Any]:
    """Counts, the classes and a contact sheet."""
    found = raw.figures
    counts = class_counts(raw)
    return {
        "images": found["images"],
        "classes": len(counts),
        "files_found": found["files_found"],
        "hidden_passed_over": found["hidden_passed_over"],
        "repeated_passed_over": found.get("repeated_passed_over", 0),
        "sidecars_passed_over": found.get("sidecars_passed_over", 0),
        "passed_over": found.get("passed_over", {}),
        "files_read": found["files_read"],
        "files_per_second": round(found["files_read"] / max(raw.commit.seconds, 1e-3), 1),
        "formats": found["formats"],
        "report": dg.MetadataValue.md(report.as_markdown(report.of_lake(raw))),
        "images_per_class": picture(figures.class_bar_chart(counts)),
        "contact_sheet": picture(figures.contact_sheet(thumbnails(raw))),
    }


def rejected_metadata(rejected: Snapshot) -> dict[str, Any]:
    """Counts by reason, and the first files with what is wrong with them."""
    found = rejected.figures
    rows = rejected.head(["path", "reason", "detail"], MAX_REJECTED_SHOWN).to_pylist()
    sheet = figures.rejected_sheet(
        [(row["path"], row["reason"], row["detail"]) for row in rows],
        found["rejected"],
        found=found["files_found"],
    )
    return {
        "rejected": found["rejected"],
        "files_found": found["files_found"],
        "rejected_share": found["rejected"] / found["files_found"],
        "reasons": found["reasons"],
        "rejected_files": picture(sheet),
    }


def pca_model_metadata(snapshot: Snapshot) -> dict[str, Any]:
    """How many components were kept, and the scree plot."""
    found = snapshot.figures
    model = PcaModel.from_npz(snapshot.read(MODEL))
    target = found["n_components"] if found["n_components"] < 1 else None
    plot = figures.scree_plot(model.spectrum, chosen=found["components"], target=target)
    shown = ("fitted_on", "images", "features", "components", "explained_variance")
    return {**{name: found[name] for name in shown}, "scree_plot": picture(plot)}


def pca_features_metadata(snapshot: Snapshot, pca_model: Snapshot) -> dict[str, Any]:
    """The first two components as a map."""
    found = snapshot.figures
    points = snapshot.siblings[MAP].arrow(MAP_SCHEMA.names).to_pydict()
    ratio = PcaModel.from_npz(pca_model.read(MODEL)).explained_variance_ratio
    plot = figures.component_scatter(
        np.column_stack([points["pc_1"], points["pc_2"]]),
        points["label"],
        explained=(float(ratio[0]), float(ratio[1])) if len(ratio) > 1 else (float(ratio[0]), 0.0),
    )
    return {
        "images": found["images"],
        "components": found["components"],
        "map_of_the_photos": picture(plot),
    }


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """The UI shows a picture at its own size, in a dialog not much wider than `SHOWN_WIDTH`."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((SHOWN_WIDTH, image.height))
    image.putalpha(_card(image.size))
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG")
    if buffer.tell() > figures.LIMIT:
        buffer, kind = io.BytesIO(), "webp"
        image.save(buffer, "WEBP", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![](data:image/{kind};base64,{data})")


def _card(size: tuple[int, int]) -> Image.Image:
    """Opaque, with round corners: drawn larger, so that they are smooth."""
    mask = Image.new("L", (4 * size[0], 4 * size[1]))
    corner = (mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(((0, 0), corner), 4 * RADIUS, fill=255)
    return mask.resize(size, Image.Resampling.BOX)
