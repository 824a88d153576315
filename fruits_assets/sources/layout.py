"""How people lay out photos in folders: splits, labels, and what is passed over."""

from __future__ import annotations

from pathlib import PurePosixPath

SPLITS = {
    "training": "Training",
    "train": "Training",
    "test": "Test",
    "validation": "Validation",
    "val": "Validation",
}
"""Folder names that say which split a photo belongs to, in lower case -> the split."""
TRAINING, TEST = SPLITS["training"], SPLITS["test"]
AUTO, ALL = "auto", "all"
"""What may be asked for instead of a split: Training where there is one, else all; or all."""

HIDDEN_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""Passed over beside the names that begin with a dot."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name.lower() in HIDDEN_NAMES


def split_of(path: str) -> str | None:
    """`Training`, `Test` or `Validation`, from the first folder that is named so; else None."""
    folders = PurePosixPath(path).parts[:-1]
    return next((SPLITS[name.lower()] for name in folders if name.lower() in SPLITS), None)


def label_of(path: str) -> str | None:
    """The parent folder's name; None at the top level or directly in a split's folder."""
    folder = PurePosixPath(path).parent.name
    return folder if folder and folder.lower() not in SPLITS else None
