"""Files beside photos that are passed over: leftovers of systems, and sidecars of photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import PurePosixPath

SYSTEM_NAMES = {
    name.casefold(): name
    for name in (
        # Windows, its network drives, and recycle bins
        *("Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "Picasa.ini"),
        *("$RECYCLE.BIN", "RECYCLER", "Recycled", "System Volume Information"),
        # macOS
        *(".DS_Store", ".Trashes", "__MACOSX", "Icon\r", "Network Trash Folder", "Temporary Items"),
        # Synology, QNAP and NetApp
        *("@eaDir", "@tmp", "@sharebin", "@Recycle", "@Recently-Snapshot"),
        *("#recycle", "#snapshot", "~snapshot"),
        # Linux, Hadoop and Spark
        *("lost+found", "_SUCCESS", "_temporary"),
    )
}
"""Names of files and folders of systems, casefolded -> as the system writes them."""
SYSTEM_BEGINNINGS = ("._", ".", "~$", "_committed_", "_started_")
"""Beginnings of such names: macOS's second files, hidden ones, locks of office programs."""
SYSTEM_ENDINGS = ("_$folder$",)
"""Endings of such names: markers of folders that Hadoop leaves in buckets."""

DESCRIPTIONS = frozenset({"aae", "xmp", "thm", "pp3", "dop"})
"""Extensions of files that describe or edit a photo, and are never one."""
COMPANIONS = frozenset({"xml", "json", "txt", "mov", "mp4", "wav", "md5", "sha1", "sha256"})
"""Extensions of files that belong to a photo if they are named after one in the same folder."""
ANNOTATIONS = frozenset({"xml", "json", "txt"})
"""Extensions of those that may also lie in another folder (`Annotations/1.xml`)."""
PAPERS = frozenset({"readme", "license", "licence"})
"""First words of names of files that describe a data set as a whole, with or without extension."""
DATA_PAPERS = frozenset({"classes", "labels", "data", "_annotations"})
"""The same, with an extension."""
PAPER_EXTENSIONS = frozenset({"md", "txt", "yaml", "yml", "json", "names"})
SIDECARS = DESCRIPTIONS | COMPANIONS | PAPER_EXTENSIONS | {""}
PHOTOS = frozenset(
    {
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff", "avif"),
        *("heic", "heif", "hif", "dng", "cr2", "cr3", "crw", "nef", "arw", "raf", "orf", "rw2"),
    }
)
"""Extensions of photos that sidecars are named after."""
COMMONEST = (".jpg", ".png", ".jpeg", ".JPG")
"""Endings of names that are looked at no closer: nearly all files of a source have one of them."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return hidden_kind(name) is not None


def hidden_kind(name: str) -> str | None:
    r"""The kind of leftover that has this name, a file or a folder; None if it is no leftover.

    Of a name with backslashes, which a zip file made on Windows leaves, every part counts.

    >>> hidden_kind("._1.jpg"), hidden_kind("THUMBS.DB"), hidden_kind("1.jpg")
    ('._*', 'Thumbs.db', None)
    """
    if "\\" in name:
        return next(filter(None, map(hidden_kind, name.split("\\"))), None)
    known = SYSTEM_NAMES.get(name.casefold())
    if known or not (name.startswith(SYSTEM_BEGINNINGS) or name.endswith(SYSTEM_ENDINGS)):
        return known
    begun = next((f"{it}*" for it in SYSTEM_BEGINNINGS if name.startswith(it)), None)
    return begun or next(f"*{it}" for it in SYSTEM_ENDINGS if name.endswith(it))


def first_hidden(path: str) -> tuple[str, str] | None:
    """The first file or folder of a path that is passed over for its name, and its kind."""
    names = PurePosixPath(path).parts
    for number, name in enumerate(names, start=1):
        if kind := hidden_kind(name):
            return "/".join(names[:number]), kind
    return None


def sidecars(paths: Callable[[], Iterable[str]]) -> Mapping[str, str]:
    """Which of all files of a source belong to a photo, or describe the data set.

    A file is looked at by its name alone, and so only where its name leaves no doubt: a photo that
    is named `notes.txt` is still examined.

    Args:
        paths: iterates over all paths; twice where any may be a sidecar. Memory grows with those.

    Returns:
        Path -> its extension, in lower case with its dot, or its name where it has none.
    """
    candidates = [
        (path, extension)
        for path in paths()
        if not path.endswith(COMMONEST) and (extension := extension_of(path)) in SIDECARS
    ]
    if not candidates:
        return {}
    photos = _Photos.among(paths(), [path for path, _ in candidates])
    return {
        path: f".{extension}" if extension else path.rpartition("/")[2]
        for path, extension in candidates
        if photos.have(path, extension)
    }


def named_after(photos: Iterable[str], files: Sequence[str]) -> Iterator[str]:
    """The sidecars among some files that are named after one of these photos and lie beside it."""
    known = _Photos.among(photos, files)
    return (path for path in files if known.name(path))


class _Photos:
    """Names of photos, as sidecars are named after them: casefolded, for cameras mix both cases."""

    def __init__(self, names: Set[str], stems: Set[str], anywhere: Set[str]) -> None:
        self._names, self._stems, self._anywhere = names, stems, anywhere

    @classmethod
    def among(cls, paths: Iterable[str], files: Iterable[str]) -> _Photos:
        """Those names of photos that any of some files may be named after."""
        wanted = {_stem(path.casefold()) for path in files}
        wanted_names = wanted | {_stem(base) for base in wanted}
        own = {_own(path) for path in files}
        names, stems, anywhere = set[str](), set[str](), set[str]()
        for path in paths:
            if extension_of(path) in PHOTOS:
                name = path.casefold()
                stem = _stem(name)
                names |= {name} & wanted_names
                stems |= {stem} & wanted
                anywhere |= {stem.rpartition("/")[2]} & own
        return cls(names, stems, anywhere)

    def have(self, path: str, extension: str) -> bool:
        """Whether a file belongs to one of them, or to all of them."""
        if extension in DESCRIPTIONS or (extension in COMPANIONS and self.name(path)):
            return True
        own = _own(path)
        if extension in ANNOTATIONS and own in self._anywhere:
            return True
        first = own.partition(".")[0]
        papers = PAPERS | DATA_PAPERS if extension else PAPERS
        return extension in {"", *PAPER_EXTENSIONS} and first in papers

    def name(self, path: str) -> bool:
        """Whether a file in the same folder is named after one of them.

        That is `1.xml`, `1.jpg.xml`, or `1.jpg.supplemental-metadata.json` as Google hands out.
        """
        base = _stem(path.casefold())
        return base in self._stems or base in self._names or _stem(base) in self._names


def _own(path: str) -> str:
    """The name of a file without its folder and extension, casefolded."""
    return (_stem(path) if extension_of(path) else path).rpartition("/")[2].casefold()


def extension_of(path: str) -> str:
    """The extension of a file in lower case, without its dot; empty where it has none."""
    name = path[path.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot + 1 :].lower() if dot > 0 else ""


def _stem(path: str) -> str:
    """A path without its extension."""
    extension = extension_of(path)
    return path[: -len(extension) - 1] if extension else path
