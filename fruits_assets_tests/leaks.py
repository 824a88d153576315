"""What a file that is sent to people says of where it was made."""

import getpass
import io
import socket
import zipfile
from collections.abc import Iterator, Mapping, Sequence

ACCOUNT = "111122223333"
KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY = f"arn:aws:kms:eu-west-3:{ACCOUNT}:key/{KEY_ID}"
PERSON = "quince7fox"
"""A user's name that no file holds by chance: name a folder after it."""


def contents(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """A file, and every file that is packed in it, at any depth, with their names."""
    yield name, content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield f"{name}: comment", archive.comment
            for entry in archive.infolist():
                yield f"{name}: {entry.filename}: extra", entry.extra + entry.comment
                yield from contents(f"{name}: {entry.filename}", archive.read(entry))


def leaks(files: Mapping[str, bytes], *places: str) -> list[str]:
    """What of this machine, its user or an account is said in files or in their names.

    Args:
        files: name -> content.
        *places: paths and URIs that must not be said, either.
    """
    return [
        f"{where}: {needle}"
        for name, content in files.items()
        for where, text in contents(name, content)
        for needle in _needles(places)
        if needle.encode() in text or needle in where
    ]


def _needles(places: Sequence[str]) -> list[str]:
    own = [socket.gethostname(), getpass.getuser()]
    # A short name (root) is a word of many files.
    own = [it for it in own if len(it) > 6]
    return ["arn:aws", ACCOUNT, KEY_ID, PERSON, *own, *places]
