"""`python -m fruits_assets.lake`: what the lake holds now."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from fruits_assets.core.errors import FruitsError
from fruits_assets.lake.lake import Lake
from fruits_assets.settings import Settings

HEADLINES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "raw_images": lambda of: (
        f"{of['images']} photos, {len({label for label, *_ in of['classes']})} classes"
    ),
    "rejected_images": lambda of: f"{of['rejected']} of {of['files_found']} files rejected",
    "model_weights": lambda of: (
        f"MobileNetV2, alpha {of['alpha']:g}, {of['image_size']} px; "
        f"{of['relative_error']:.0e} from Keras"
    ),
    "features": lambda of: (
        f"{of['features_per_image']} features each, {of['images_per_second']:.0f} images/s"
    ),
    "pca_model": lambda of: (
        f"{of['components']} components explain {of['explained_variance']:.1%} "
        f"(fitted on {of['fitted_on']})"
    ),
    "pca_features": lambda of: f"{of['images']} photos, {of['components']} components each",
    "recognition": lambda of: (
        f"{of['accuracy_components']:.1%} of {of['test']} Test photos recognised "
        f"({of['accuracy_features']:.1%} with all features)"
    ),
}
"""Asset -> the sentence that its figures make."""


def main() -> None:
    """Prints a line for every published asset; exits with a sentence where there is no lake."""
    try:
        _print_lake(Settings())
    except FruitsError as error:
        sys.exit(str(error))


def _print_lake(settings: Settings) -> None:
    lake = Lake.at(settings.lake, region=settings.region, kms_key=settings.kms_key)
    print(f"\nThe lake {lake.base} holds:\n")  # noqa: T201 - a command's output
    print(f"{'asset':<20} {'version':<17} {'MB':>7} {'made in':>8}  what")  # noqa: T201
    for asset in lake.assets():
        print(_line(lake, asset))  # noqa: T201


def _line(lake: Lake, asset: str) -> str:
    try:
        manifest = lake.current(asset).manifest
    except FruitsError as error:
        return f"{asset:<20} {error}"
    headline = HEADLINES[asset](manifest.figures) if asset in HEADLINES else ""
    megabytes, seconds = manifest.bytes / 1e6, f"{manifest.seconds:.1f} s"
    return f"{asset:<20} {manifest.version:<17} {megabytes:>7.1f} {seconds:>8}  {headline}"


if __name__ == "__main__":
    main()
