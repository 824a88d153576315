"""Recipes: what a version is made of. The same recipe has the same hash on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol


class Versioned(Protocol):
    """What a version can be made from."""

    @property
    def name(self) -> str:
        """What commits call it."""
        ...

    @property
    def version(self) -> str:
        """Changes with its content."""
        ...


@dataclass(frozen=True)
class Recipe:
    """What a version is made of.

    Attributes:
        transform: name of the function that makes it.
        code_version: of that function.
        params: its parameters, JSON values.
        inputs: recipe hash of each input, by name.
        salt: makes the hash another one, for a recomputation that is forced; else empty.
        numbers: number of each input that is a table; not part of the hash, so that a version that
            is taken again makes nothing new.
    """

    transform: str
    code_version: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    salt: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls,
        transform: str,
        code_version: str,
        inputs: Iterable[Versioned],
        *,
        params: Mapping[str, Any] | None = None,
        salt: str = "",
    ) -> Recipe:
        """The recipe of a function applied to inputs."""
        given = list(inputs)
        versions = {value.name: value.version for value in given}
        numbers = {value.name: number for value in given if (number := _number(value)) is not None}
        return cls(transform, code_version, dict(params or {}), versions, salt, numbers)

    @cached_property
    def version(self) -> str:
        """Its hash: 16 hexadecimal digits."""
        canonical = json.dumps(
            [self.transform, self.code_version, self.params, self.inputs, self.salt], sort_keys=True
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def question(self, *grown: str) -> str:
        """Hash of the recipe for any state of some of its inputs: 16 hexadecimal digits.

        Args:
            *grown: names of the inputs that may differ.
        """
        return replace(self, inputs={**self.inputs, **dict.fromkeys(grown, "")}).version


def _number(value: Versioned) -> int | None:
    return getattr(value, "number", None)
