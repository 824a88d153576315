"""The measurements of `make bench`, as its JSON file holds them (benchmarks/report.py)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fruits_assets.core.errors import DatasetError

INTERN, PROJECT = "intern", "project"
CONTENDERS = (INTERN, "predict_batch", PROJECT, "ceiling")
"""Contenders of the features stage, in the order in which they are shown."""
QUICK = 2_000
"""Photos below which the fixed costs of a stage weigh more than its work."""


@dataclass(frozen=True)
class Benchmark:
    """The features stage of all contenders at the largest size that the notebook treated.

    Attributes:
        version: changes with the content of the file.
        size: photos.
        rates: contender -> images per second.
        worker_bytes: contender -> largest resident set of one Python worker.
    """

    version: str
    size: int
    rates: Mapping[str, float]
    worker_bytes: Mapping[str, int]
    name: str = "benchmark"

    @property
    def times(self) -> float:
        """The project's rate over that of the notebook."""
        return self.rates[PROJECT] / self.rates[INTERN]

    @property
    def is_quick(self) -> bool:
        """Whether it is a look rather than a measurement."""
        return self.size < QUICK

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None where there is no such file, or where the two were not compared in it.

        Raises:
            DatasetError: it cannot be read, or is not what `make bench` writes.
        """
        try:
            content = path.read_bytes()
            results = json.loads(content)["results"]
            return cls._of(results, hashlib.sha256(content).hexdigest()[:16])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise DatasetError(
                f"{path} is not what `make bench` writes ({error!r}). Run `make bench` again, or "
                "name another file in the config of presentation (benchmark)."
            ) from error

    @classmethod
    def _of(cls, results: list[Mapping[str, Any]], version: str) -> Self | None:
        found = {
            (one["contender"], int(one["size"])): one for one in results if not one["executors"]
        }
        sizes = [size for name, size in found if name == INTERN and (PROJECT, size) in found]
        if not sizes:
            return None
        size = max(sizes)
        shown = {name: found[name, size] for name in CONTENDERS if (name, size) in found}
        return cls(
            version,
            size,
            {name: size / float(one["median"]) for name, one in shown.items()},
            {name: int(one["peaks"].get("worker", 0)) for name, one in shown.items()},
        )
