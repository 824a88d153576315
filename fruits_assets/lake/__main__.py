"""`python -m fruits_assets.lake`: what the lake holds now.

`... repair`: whether it is whole; `... index`: where the page of the deliverables lies.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fruits_assets.core.errors import FruitsError
from fruits_assets.core.storage import join
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
    "notebook": lambda of: (
        f"{of['cells']} cells, {of['live']['photos']} photos computed again: "
        f"{of['live']['features_difference']:.0e} from the lake"
    ),
    "presentation": lambda of: f"{of['slides']} slides for {of['minutes']} minutes",
    "gallery": lambda of: f"{of['photos']} of {of['of']} photos, {of['sheets']} sheets of them",
    "deliverables": lambda of: f"{len(of['bytes_of'])} files under their names, and a page",
}
"""Asset -> the sentence that its figures make."""


ORDER = (
    *("rejected_images", "raw_images", "model_weights", "features", "pca_model", "pca_features"),
    *("notebook", "presentation", "gallery", "deliverables"),
)
"""In which assets are made from each other."""


def main(arguments: Sequence[str] = ()) -> int:
    """Prints what the command is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fruits_assets.lake", description=__doc__)
    parser.add_argument("command", nargs="?", choices=[*COMMANDS], default="show")
    try:
        return COMMANDS[parser.parse_args(arguments).command](_lake(Settings()))
    except FruitsError as error:
        sys.exit(str(error))


def _lake(settings: Settings) -> Lake:
    return Lake.at(settings.lake, region=settings.region, kms_key=settings.kms_key)


def _repair(lake: Lake) -> int:
    """Removes damaged files, so that the next run makes them again, and only them."""
    damaged = list(lake.damaged())
    if not damaged:
        print(f"The lake {lake.base} is whole: every file is what was written.")  # noqa: T201
        return 0
    for one in damaged:
        print(f"{one.asset}: {one.uri}: {one.what}. It is removed.")  # noqa: T201
        lake.storage.purge(one.uri)
    found = {one.asset for one in damaged}
    named = [*(asset for asset in ORDER if asset in found), *sorted(found - {*ORDER})]
    print(  # noqa: T201
        f"\nMaterialise again, in this order: {', '.join(named)} (or all: make run, "
        "and make deliverables where they are named). What is whole is not computed again."
    )
    return 1


def _show(lake: Lake) -> int:
    print(f"\nThe lake {lake.base} holds:\n")  # noqa: T201 - a command's output
    print(f"{'asset':<20} {'version':<17} {'MB':>7} {'made in':>8}  what")  # noqa: T201
    for asset in lake.assets():
        print(_line(lake, asset))  # noqa: T201
    return 0


def _line(lake: Lake, asset: str) -> str:
    try:
        manifest = lake.current(asset).manifest
    except FruitsError as error:
        return f"{asset:<20} {error}"
    headline = HEADLINES[asset](manifest.figures) if asset in HEADLINES else ""
    megabytes, seconds = manifest.bytes / 1e6, f"{manifest.seconds:.1f} s"
    return f"{asset:<20} {manifest.version:<17} {megabytes:>7.1f} {seconds:>8}  {headline}"


def _index(lake: Lake) -> int:
    dataset = lake.current("deliverables")
    print(join(dataset.uri, dataset.manifest.figures["index"]))  # noqa: T201
    return 0


COMMANDS: Mapping[str, Callable[[Lake], int]] = {"show": _show, "repair": _repair, "index": _index}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
