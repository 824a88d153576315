"""How much there is to do: photos, the stages they go through, and the time of one core.

The rates are measured (`rates.json`), and every forecast is made of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fruits_assets.spark.account import Architecture

RATES = Path(__file__).with_name("rates.json")
STAGES = ("ingest", "featurize", "fit_pca", "apply_pca", "measures")
"""In the order in which a run goes through them."""
STAGE_OF = {
    "measure_drift": "fit_pca",
    "inspect_images": "featurize",
    "inspect_features": "measures",
    "recognize": "measures",
    "draw_gallery": "measures",
}
"""Transforms that are part of a stage of another name -> the stage."""
PART_ROWS, PART_MEGABYTES = 16_384, 67
"""Rows and megabytes of a part file, at most: see `transforms/ingest.py`."""
GETS_PER_PART, PUTS_PER_PART = 4, 2
"""Per part and stage: footer and row groups of one Parquet file, and the files made from it."""
LIST_PAGE = 1000


@dataclass(frozen=True)
class Work:
    """Photos, and the stages that they go through.

    Attributes:
        images: how many.
        megabytes: of all photos together (10^6 bytes).
        stages: some of `STAGES`.
    """

    images: int
    megabytes: float
    stages: tuple[str, ...] = STAGES

    @property
    def parts(self) -> int:
        """Part files, about: the tasks of a stage."""
        return math.ceil(max(self.images / PART_ROWS, self.megabytes / PART_MEGABYTES))

    @property
    def puts(self) -> float:
        """Requests to S3 that write or list."""
        listed = self.images / LIST_PAGE if "ingest" in self.stages else 0.0
        return PUTS_PER_PART * self.parts * len(self.stages) + listed

    @property
    def gets(self) -> float:
        """Requests to S3 that read."""
        photos = self.images if "ingest" in self.stages else 0
        return GETS_PER_PART * self.parts * len(self.stages) + photos

    def longest_stage(self) -> Work:
        """The stage that takes the most time, as work of its own; the work itself without one."""
        each = [replace(self, stages=(stage,)) for stage in self.stages]
        return max(each, key=core_seconds, default=self)


def stages_from(transform: str) -> tuple[str, ...]:
    """The stages that a run which begins with this transform may still go through.

    All of them for a transform that is no stage, such as an erasure: it reads no more than they do.
    """
    name = STAGE_OF.get(transform, transform)
    return STAGES[STAGES.index(name) :] if name in STAGES else STAGES


@cache
def _rates() -> Mapping[str, Any]:
    return json.loads(RATES.read_text())


def core_seconds(work: Work) -> float:
    """CPU time of the work, in seconds of the core that `rates.json` was measured on."""
    rates = _rates()["stages"]
    return sum(
        rates[stage]["seconds_per_image"] * work.images
        + rates[stage]["seconds_per_megabyte"] * work.megabytes
        for stage in work.stages
    )


def vcpu_seconds(work: Work, architecture: Architecture) -> float:
    """CPU time of the work on vCPUs of AWS, which are slower by an assumed factor."""
    return core_seconds(work) * _rates()["vcpu_factor"][architecture]
