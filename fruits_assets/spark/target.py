"""The Spark target: the resource that runs a transform somewhere."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg

from fruits_assets.lake.recipe import Recipe, Versioned
from fruits_assets.lake.resource import Context, Deployed, LakeResource
from fruits_assets.storage.base import Folder
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.transform import Transform


class Input(Versioned, Protocol):
    """What a transform can be given: a snapshot, or the listing of the source."""

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

    def done(self, unpublished: Mapping[str, int]) -> float:
        """Share of it, 0 to 1, that interrupted runs have made parts from: name -> size."""
        ...

    def stage(self, folders: Mapping[str, Folder]) -> Snapshot:
        """What the transform is given; written into one of its output folders if it must be."""
        ...


@dataclass(frozen=True)
class Call:
    """A transform to run.

    Attributes:
        context: of the asset, check or op that asks.
        transform: what to run.
        arguments: snapshots of inputs, folders of outputs, and parameters, by name.
        inputs: what the snapshots of the inputs were made from.
    """

    context: Context
    transform: Transform
    arguments: Mapping[str, Any]
    inputs: Mapping[str, Input]


class SparkTarget(Deployed, ABC):
    """Runs transforms; one subclass per place to run them."""

    lake: dg.ResourceDependency[LakeResource]

    def run(
        self,
        context: Context,
        transform: Transform,
        *,
        params: Mapping[str, Any] | None = None,
        places: Mapping[str, Folder] | None = None,
        force: bool = False,
        **inputs: Input,
    ) -> Snapshot:
        """Makes the version of this recipe, or finds it: the same question is answered once.

        Args:
            context: of the asset or check that asks.
            transform: what to run.
            params: its parameters.
            places: folders that it reads, which are not part of the recipe.
            force: make a new version even where there is one already.
            **inputs: its inputs.

        Returns:
            The leading table of the transform, ready to be published, the others its siblings.

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
        given = {**recipe.params, **(places or {})}
        return self.make(context, recipe, transform, params=given, **inputs)

    def make(
        self,
        context: Context,
        recipe: Recipe,
        transform: Transform,
        *,
        params: Mapping[str, Any],
        **inputs: Input,
    ) -> Snapshot:
        """Makes the version of a recipe by a transform: the one it names, or one as good.

        Args:
            context: of the asset, check or op that asks.
            recipe: of the version.
            transform: what to run.
            params: of the transform.
            **inputs: of the transform.

        Raises:
            dg.Failure: the transform raised a FruitsError; its text is the description.
        """

        def make(folders: Mapping[str, Folder]) -> dict[str, Output]:
            arguments: dict[str, Any] = {name: one.stage(folders) for name, one in inputs.items()}
            grown = [inputs[name].name for name in transform.grows_with]
            arguments |= {**folders, **params, "question": recipe.question(*grown)}
            if grown:
                lake = self.lake.open()
                arguments["earlier"] = lake.earlier(recipe, transform.lead, grown=grown)
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
