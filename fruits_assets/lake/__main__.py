"""`python -m fruits_assets.lake`: what the lake holds now."""

from fruits_assets.core.errors import FruitsError
from fruits_assets.lake.lake import Lake
from fruits_assets.settings import Settings

MEGABYTE = 1e6


def main() -> None:
    """Prints a line for every published asset."""
    lake = Lake.at(Settings().lake)
    print(f"\nThe lake {lake.base} holds:")  # noqa: T201 - a command's output
    print(f"{'asset':<20} {'version':<17} {'rows':>8} {'MB':>8}  made in")  # noqa: T201
    for asset in lake.assets():
        print(_line(lake, asset))  # noqa: T201


def _line(lake: Lake, asset: str) -> str:
    try:
        manifest = lake.current(asset).manifest
    except FruitsError as error:
        return f"{asset:<20} {error}"
    size, rows = manifest.bytes / MEGABYTE, manifest.rows or ""
    return f"{asset:<20} {manifest.version:<17} {rows:>8} {size:>8.1f}  {manifest.seconds:.1f} s"


if __name__ == "__main__":
    main()
