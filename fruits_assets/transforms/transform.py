"""Transforms: Spark computations as plain functions, declared with what they write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

import pyarrow as pa

from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import File, Origin, write_part
from fruits_assets.storage.snapshot import Output

FIGURES_SCHEMA = pa.schema(
    [pa.field("name", pa.string(), nullable=False), pa.field("value", pa.float64(), nullable=False)]
)
"""A table of figures: what a measure has found."""


@dataclass(frozen=True)
class Transform:
    """A Spark computation: `function(spark, *, question, log, **inputs, **outputs, **params)`.

    Inputs are snapshots, outputs are folders of tables, params are JSON values. The function reads
    its inputs, writes parts into the outputs, and returns an `Output` for each of them, by name.
    `question` is a hash of all that its parts depend on beside the rows that they are made from.

    Attributes:
        function: a plain function.
        code_version: changes whenever the results would.
        outputs: the tables that it writes: name -> schema. The first is published last: it leads.
        grows_with: the inputs that may have grown since an earlier version, whose snapshot the
            function is then given as `earlier`, to take over what still holds.
    """

    function: Callable[..., dict[str, Output]]
    code_version: str
    outputs: Mapping[str, pa.Schema]
    grows_with: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    @property
    def address(self) -> str:
        """`module:name`, by which another process finds it."""
        return f"{self.function.__module__}:{self.name}"

    @property
    def lead(self) -> str:
        """Name of the table that is published last."""
        return next(iter(self.outputs))


def transform_at(address: str) -> Transform:
    """The transform of this package at an address. Raises ValueError where there is none."""
    module, _, name = address.partition(":")
    own = module.startswith(f"{__package__}.")
    found = getattr(import_module(module), name, None) if own else None
    if not isinstance(found, Transform):
        raise ValueError(f"there is no transform at {address!r}")  # noqa: TRY004 - of its value
    return found


def transform(
    *, code_version: str, outputs: Mapping[str, pa.Schema], grows_with: str | tuple[str, ...] = ()
) -> Callable[..., Transform]:
    """Declares a function to be a transform; one input that grows needs no tuple."""
    growing = (grows_with,) if isinstance(grows_with, str) else grows_with

    def declare(function: Callable[..., dict[str, Output]]) -> Transform:
        return Transform(function, code_version, dict(outputs), growing)

    return declare


def write_figures(folder: Folder, question: str, figures: Mapping[str, float]) -> File:
    """Writes figures as a table of them (`FIGURES_SCHEMA`)."""
    columns = [list(figures), [float(value) for value in figures.values()]]
    table = pa.Table.from_arrays(
        [
            pa.array(column, field.type)
            for column, field in zip(columns, FIGURES_SCHEMA, strict=True)
        ],
        schema=FIGURES_SCHEMA,
    )
    return write_part(folder, Origin(question, 0, len(figures)), table)
