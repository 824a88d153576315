"""Spark on EMR, on clusters or serverless: what both share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from fruits_assets.spark import sizing
from fruits_assets.spark.account import EmrLimits, EmrPlaces
from fruits_assets.spark.code import Code, ship
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.submitted import SubmittedSpark, add_metadata
from fruits_assets.spark.target import Call


class EmrTarget(SubmittedSpark):
    """Runs transforms in the AWS account that a stack was deployed to."""

    limits: EmrLimits

    @property
    @abstractmethod
    def places(self) -> EmrPlaces:
        """Where in the stack's buckets code, messages and logs lie."""

    @property
    def uri(self) -> str:  # noqa: D102 - see Place
        return self.places.pipes

    @property
    def deadline_minutes(self) -> float:  # noqa: D102 - see SubmittedSpark
        return self.limits.step_minutes

    @property
    def begin_minutes(self) -> float:  # noqa: D102 - see SubmittedSpark
        return self.limits.begin_minutes

    @property
    def prices(self) -> Prices:
        """The package's, with those that the user knows better. Raises SparkError."""
        return Prices.read(self.limits.prices)

    @property
    def sizes(self) -> sizing.Limits:
        """How large and dear it may become."""
        return self.limits.of_plans()

    def ship(self, log: Callable[[str], None]) -> Code:  # noqa: D102 - see SubmittedSpark
        for place in (self.places.pipes, self.places.logs):
            self.folder(place)
        return ship(self.folder(self.places.code), self.places.architecture, log=log)

    @staticmethod
    def tell_cost(call: Call, eur: float, facts: Mapping[str, Any]) -> None:
        """Logs what a job took and cost, and adds it to the metadata of its assets."""
        images = max(value.rows for value in call.inputs.values())
        told = {
            **facts,
            "cost_eur": round(eur, 4),
            "cost_eur_per_1000_images": round(1000 * eur / max(1, images), 4),
        }
        call.context.log.info(", ".join(f"{name} {value}" for name, value in told.items()))
        add_metadata(call, named(told))


def named(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as assets have them: each begins with `emr_`."""
    return {f"emr_{name}": value for name, value in metadata.items()}
