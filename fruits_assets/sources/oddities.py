"""Finds what is odd about classes and folders, from the paths and labels of photos."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile

from fruits_assets.sources.layout import LABELS, TEST, TRAINING, VALIDATION, Labels, places_of

Labelled = tuple[str | None, str | None]
"""Split and label of a photo."""
Pair = tuple[str, str]
"""Two folders, in order; empty for the source itself."""
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


def shared_under(folders: Sequence[str], split: str) -> dict[Labels, int]:
    """Rule for labels -> how many classes a split shares with Training by it; those with any."""
    found: dict[Labels, int] = {}
    for rule in LABELS:
        classes = classes_of(places_of(folders, rule).values())
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
    pairs: Counter[Pair] = Counter()
    for group in by_content.values():
        pairs.update(folders_of(sorted(group)[:COMPARED]))
    below = photos_below(
        (path for group in by_content.values() for path in group),
        {folder for pair in pairs for folder in pair},
    )
    return confirmed(pairs, below)


def folders_of(paths: Sequence[str]) -> Iterator[Pair]:
    """Pairs of folders that photos of the same content, and of the same names in them, lie in.

    Args:
        paths: of photos with one content, in order; `COMPARED` at most.
    """
    for one, other in combinations(paths, 2):
        if folders := _apart(one, other):
            yield folders


def photos_below(paths: Iterable[str], folders: Collection[str]) -> Counter[str]:
    """How many photos lie in each of some folders, at any depth; empty for the source itself."""
    found: Counter[str] = Counter()
    for path in paths:
        ends = [i for i, letter in enumerate(path) if letter == "/" and i]
        found.update(folder for i in (0, *ends) if (folder := path[:i]) in folders)
    return found


def confirmed(pairs: Mapping[Pair, int], below: Mapping[str, int]) -> list[Copy]:
    """The pairs of folders of which one is a copy of the other, those with most photos first.

    Args:
        pairs: two folders, in order -> photos that lie in both.
        below: each of them -> photos in it, at any depth.
    """
    found = []
    for (folder, other), count in pairs.items():
        inside, outside = below[other], below[folder]
        if not folder or other.startswith(f"{folder}/"):
            outside -= inside
        if count > 1 and count >= SAME * min(inside, outside):
            found.append(Copy(folder, other, count))
    return sorted(found, key=lambda copy: (-copy.photos, copy.folder, copy.other))


def _apart(one: str, other: str) -> Pair | None:
    """The folders below which two paths are the same; None where their files have other names."""
    first, second = one.split("/"), other.split("/")
    pairs = zip(reversed(first), reversed(second), strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    folders = "/".join(first[:-same]), "/".join(second[:-same])
    return (min(folders), max(folders)) if same and folders[0] != folders[1] else None
