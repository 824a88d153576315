"""Finds what is odd about classes and folders, from the paths and labels of photos."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile

from fruits_assets.sources.layout import LABELS, TEST, TRAINING, VALIDATION, Labels, places

Labelled = tuple[str | None, str | None]
"""Split and label of a photo."""
SAME = 0.9
"""Share of the photos of a folder that lie in another one too, from which it is a copy of it."""
COMPARED = 8
"""Copies of one content that are compared with each other, at most."""


def classes_of(placed: Iterable[Labelled]) -> Mapping[str, set[str]]:
    """Split -> the labels of its photos. Photos without either are left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for split, label in placed:
        if split and label:
            found[split].add(label)
    return found


def strangers(classes: Mapping[str, set[str]]) -> list[str]:
    """The splits that share no class with Training."""
    training = classes.get(TRAINING)
    if not training:
        return []
    return [it for it in (TEST, VALIDATION) if it in classes and not classes[it] & training]


def shared_under(paths: Sequence[str], split: str) -> dict[Labels, int]:
    """Rule for labels -> how many classes a split shares with Training by it; those with any."""
    found: dict[Labels, int] = {}
    for rule in LABELS:
        classes = classes_of(places(paths, rule))
        found[rule] = len(classes.get(TRAINING, set()) & classes.get(split, set()))
    return {rule: count for rule, count in found.items() if count}


def in_one_split(classes: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """Split -> the classes that only it has; empty where there is one split at most."""
    if len(classes) < 2:
        return {}
    counts = Counter(label for labels in classes.values() for label in labels)
    alone = {split: sorted(it for it in classes[split] if counts[it] == 1) for split in classes}
    return {split: labels for split, labels in sorted(alone.items()) if labels}


def near_equal(labels: Iterable[str]) -> list[list[str]]:
    """Groups of class names that differ in case, accents, or `_`, `-` and spaces only."""
    groups: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        letters = unicodedata.normalize("NFKD", label).casefold()
        bare = "".join(it for it in letters if not unicodedata.combining(it))
        groups[re.sub(r"[\s_-]+", " ", bare).strip()].add(label)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


@dataclass(frozen=True)
class Copy:
    """A folder whose photos lie in another folder too, by the same names.

    Attributes:
        folder: of the two, the first in order; empty for the source itself.
        other: the other one; it may lie in the first.
        photos: that lie in both.
    """

    folder: str
    other: str
    photos: int

    def __str__(self) -> str:
        return f"{self.photos} photos of {self.folder or 'the source'} lie in {self.other} too"


def copies(photos: Iterable[tuple[str, str]]) -> list[Copy]:
    """Folders whose photos are there twice: the one with most photos first.

    Args:
        photos: path and SHA-256 of each.
    """
    by_content: dict[str, list[str]] = defaultdict(list)
    for path, digest in photos:
        by_content[digest].append(path)
    paths = [path for group in by_content.values() for path in group]
    pairs: Counter[tuple[str, str]] = Counter()
    for group in by_content.values():
        pairs.update(
            folders
            for pair in combinations(sorted(group)[:COMPARED], 2)
            if (folders := _apart(*pair))
        )
    return [
        Copy(folder, other, count)
        for (folder, other), count in pairs.most_common()
        if count > 1 and count >= SAME * _smaller(paths, folder, other)
    ]


def _apart(one: str, other: str) -> tuple[str, str] | None:
    """The folders below which two paths are the same; None where their files have other names."""
    first, second = one.split("/"), other.split("/")
    pairs = zip(reversed(first), reversed(second), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    folders = "/".join(first[:-same]), "/".join(second[:-same])
    return (min(folders), max(folders)) if same else None


def _smaller(paths: Sequence[str], folder: str, other: str) -> int:
    """How many photos the smaller of two folders holds; of one in the other, without it."""
    inside = [path for path in paths if path.startswith(f"{other}/")]
    below = f"{folder}/" if folder else ""
    outside = sum(path.startswith(below) for path in paths)
    if other.startswith(below):
        outside -= len(inside)
    return min(len(inside), outside)
