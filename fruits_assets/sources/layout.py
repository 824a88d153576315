"""How people lay out photos in folders: which folder is the split, and which the class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Literal, Self, get_args

TRAINING, TEST, VALIDATION = "Training", "Test", "Validation"
SPLITS = {
    **dict.fromkeys(("training", "train"), TRAINING),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
}
"""Words for a split -> the split. They are those that Hugging Face's `datasets` looks for."""
AUTO, ALL = "auto", "all"
"""Values in place of a split: `auto` is Training where there is one, else all; `all` is all."""
FILLERS = frozenset(
    {
        *("set", "sets", "split", "data", "dataset", "datasets", "seg", "file", "files", "folder"),
        *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
        *("pic", "pics", "sample", "samples"),
    }
)
"""Words that may stand beside the one for a split: `Training Set`, `train_images`, `seg_train`."""

Labels = Literal["parent", "first", "path"]
"""Which of the folders of a photo is its label; see `Layout`."""
LABELS: tuple[Labels, ...] = get_args(Labels)
Place = tuple[str | None, str | None]
"""Split and label of a photo."""


def normal(name: str) -> str:
    """A name as it is compared: in NFC, for letters may be spelled in two ways, and trimmed."""
    return unicodedata.normalize("NFC", name).strip()


@lru_cache(maxsize=4096)
def split_named(name: str) -> str | None:
    """The split that a folder's name means; None where it means something else.

    >>> split_named("Training Set"), split_named("val2017"), split_named("Test Apples")
    ('Training', 'Validation', None)
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", normal(name))
    words = [word for word in re.split(r"[\s_.()-]+|(?<=\D)(?=\d)", spaced.casefold()) if word]
    meant = [_meaning(word) for word in words if word not in FILLERS and not word.isdecimal()]
    return meant[0] if len(meant) == 1 else None


def _meaning(word: str) -> str | None:
    """The split that one word means, written together with a filler or not (`trainset`)."""
    if word in SPLITS:
        return SPLITS[word]
    heads = (word.removesuffix(filler) for filler in FILLERS if word.endswith(filler))
    return next((SPLITS[head] for head in heads if head in SPLITS), None)


def folder_of(path: str) -> str:
    r"""The folder that a listed file lies in, with `/` between names; empty for the source itself.

    A zip file made on Windows, unpacked elsewhere, leaves files named `Training\Apple\1.jpg`: for
    the layout, a backslash is a slash.
    """
    if "\\" not in path and path[-1:] != "/":  # most paths: this is done for every file
        return path.rpartition("/")[0]
    return path.replace("\\", "/").rstrip("/").rpartition("/")[0]


@dataclass(frozen=True)
class _Folder:
    """A folder with photos.

    Attributes:
        split: that the first of its names which means one means.
        before: names before that one; all of them where none does.
        after: names after it, without further ones that mean a split (`train/train/Apple`).
    """

    split: str | None
    before: tuple[str, ...]
    after: tuple[str, ...]

    @classmethod
    def of(cls, folder: str) -> Self:
        names = tuple(name for name in map(normal, folder.split("/")) if name)
        first = next((i for i, name in enumerate(names) if split_named(name)), None)
        if first is None:
            return cls(None, names, ())
        after = tuple(name for name in names[first + 1 :] if not split_named(name))
        return cls(split_named(names[first]), names[:first], after)


@dataclass(frozen=True)
class Layout:
    """Gives files their split and label by the folders that they lie in.

    Folders are `split/class` (`Training/Apple`), `class/split` (`Apple/Training`) or just `class`.
    Of nested classes (`Training/Fruit/Apple/Golden`), the label is

    - `parent`: the folder that the photo lies in (Golden);
    - `first`: the first folder below the split, or below the source without splits (Fruit);
    - `path`: all of these folders (Fruit/Apple/Golden).

    Attributes:
        labels: one of the three.
        wrapper: names that all folders of a `class/split` layout begin with; None where splits do
            not lie in classes.
    """

    labels: Labels
    wrapper: tuple[str, ...] | None = None

    @classmethod
    def of(cls, folders: Iterable[_Folder], labels: Labels) -> Self:
        """The layout of a source with these folders.

        Photos directly in the folder of a split have no class (`data/train/1.jpg`), unless such
        folders lie in several others: these are the classes (`Apple/train`, `Pear/train`).
        """
        classes = {it.before for it in folders if it.split and it.before and not it.after}
        if len(classes) < 2:
            return cls(labels)
        first, last = min(classes), max(classes)  # what they begin with, all of them do
        same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        return cls(labels, tuple(name for name, _ in same))

    def place(self, folder: _Folder) -> Place:
        """Split and label of the photos in a folder."""
        names = folder.after if folder.split else folder.before
        if folder.split and not names and self.wrapper is not None:
            names = folder.before[len(self.wrapper) :] or folder.before[-1:]
        if not names:
            return folder.split, None
        chosen = {"parent": names[-1], "first": names[0], "path": "/".join(names)}
        return folder.split, chosen[self.labels]


def places_of(folders: Iterable[str], labels: Labels = "parent") -> Mapping[str, Place]:
    """Split and label of the photos in each of all folders of a source; see `folder_of`."""
    known = {name: _Folder.of(name) for name in folders}
    layout = Layout.of(known.values(), labels)
    return {name: layout.place(folder) for name, folder in known.items()}


def places(paths: Sequence[str], labels: Labels = "parent") -> Sequence[Place]:
    """Split and label of each of all files of a source, by their paths."""
    names = [folder_of(path) for path in paths]
    found = places_of(set(names), labels)
    return [found[name] for name in names]
