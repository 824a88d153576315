"""The Spark target: the resource that runs a transform somewhere."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg

from fruits_assets.core.dataset import Dataset, Output
from fruits_assets.lake.lake import Recipe, Versioned
from fruits_assets.lake.resource import Context, LakeResource
from fruits_assets.transforms.transform import Transform


class Input(Versioned, Protocol):
    """What a transform can be given: a dataset, or the listing of the source."""

    @property
    def place(self) -> str:
        """URI of the folder or prefix that workers read."""
        ...

    @property
    def rows(self) -> int:
        """How many it holds."""
        ...

    @property
    def bytes(self) -> int:
        """What they weigh."""
        ...

    def done(self, folder: str) -> float:
        """Share of it, 0 to 1, that an interrupted version in `folder` has been made from."""
        ...

    def stage(self, folder: str) -> str:
        """The URI at which the transform finds it; written into `folder` if it must be."""
        ...


@dataclass(frozen=True)
class Call:
    """A transform to run.

    Attributes:
        context: of the asset, check or op that asks.
        transform: what to run.
        arguments: URIs of inputs and outputs, and parameters, by name.
        inputs: what the URIs of the inputs are.
    """

    context: Context
    transform: Transform
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Input]


class SparkTarget(dg.ConfigurableResource, ABC):
    """Runs transforms; one subclass per place to run them."""

    lake: dg.ResourceDependency[LakeResource]

    def run(
        self,
        context: Context,
        transform: Transform,
        *,
        params: Mapping[str, Any] | None = None,
        force: bool = False,
        **inputs: Input,
    ) -> Dataset:
        """Runs a transform with one output; see `run_all`."""
        (dataset,) = self.run_all(context, transform, params=params, force=force, **inputs)
        return dataset

    def run_all(
        self,
        context: Context,
        transform: Transform,
        *,
        params: Mapping[str, Any] | None = None,
        force: bool = False,
        **inputs: Input,
    ) -> tuple[Dataset, ...]:
        """Makes the version of this recipe, or finds it: the same question is answered once.

        Args:
            context: of the asset or check that asks.
            transform: what to run.
            params: its parameters.
            force: make a new version even where there is one already.
            **inputs: its inputs.

        Returns:
            A dataset per output of the transform, ready to be published.

        Raises:
            dg.Failure: the transform raised a FruitsError; its text is the description.
        """
        recipe = Recipe.of(
            transform.name,
            transform.code_version,
            inputs.values(),
            params=params,
            salt=context.run.run_id if force else "",
        )

        return self.make(context, recipe, transform, params=recipe.params, **inputs)

    def make(
        self,
        context: Context,
        recipe: Recipe,
        transform: Transform,
        *,
        params: Mapping[str, Any],
        **inputs: Input,
    ) -> tuple[Dataset, ...]:
        """Makes the version of a recipe by a transform: the one it names, or one as good.

        Args:
            context: of the asset, check or op that asks.
            recipe: the version's address.
            transform: what to run.
            params: of the transform.
            **inputs: of the transform.

        Raises:
            dg.Failure: the transform raised a FruitsError; its text is the description.
        """

        def make(folders: Mapping[str, str]) -> dict[str, Output]:
            first = folders[transform.outputs[0]]
            uris = {name: value.stage(first) for name, value in inputs.items()}
            arguments = {**uris, **folders, **params}
            if transform.grows_with:
                grown = inputs[transform.grows_with].name
                lake = self.lake.open()
                arguments["earlier"] = lake.earlier(recipe, transform.outputs, grown=grown)
            return self.execute(Call(context, transform, arguments, inputs))

        return self.lake.produce(context, recipe, transform.outputs, make)

    @abstractmethod
    def execute(self, call: Call) -> dict[str, Output]:
        """Runs a transform, wherever this target runs things, and returns what it wrote.

        Raises:
            FruitsError: its own, or that it cannot be run.
        """

    @abstractmethod
    def definitions(self) -> dg.Definitions:
        """What Dagster serves for the sake of this target: its executor, jobs and sensors."""
