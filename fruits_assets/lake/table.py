"""Tables: one Delta table in one folder of the lake, read and committed to with delta-rs.

All that the project knows of the Delta log is here. What it relies on, and guards against, was
tried with deltalake 1.6 (docs/choices.md): a commit is one file that appears whole or not at all,
and only one writer can make it; delta-rs neither syncs it to disk, nor looks whether the files that
it names are there, nor minds an empty last commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from typing import Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from fruits_assets.core.errors import ConflictError, DatasetError, LakeError
from fruits_assets.storage.base import Folder, join
from fruits_assets.storage.parquet import PART_NAME, File
from fruits_assets.storage.snapshot import DRAFT, READS_IN_FLIGHT, REPAIR, Commit, Snapshot

T = TypeVar("T")

LOG = "_delta_log"
ENTRY = re.compile(r"(\d{20})\.json")
CHECKPOINT = "checkpoint"
"""In the names of checkpoints, and of the file that names the last of them."""
PREFIX = "fruits."
"""Begins the names of our metadata in a commit."""
NUMBER, SEAL = f"{PREFIX}number", f"{PREFIX}seal"
"""Names of the commit's own number in it, and of the hash of all that we say there."""
READ_ERRORS = (DeltaError, FileNotFoundError, ValueError, KeyError, TypeError)
"""What reading a damaged log may raise: it has no checksums. Other errors of the place that it lies
in say nothing about the log."""
CONFIGURATION = {
    # Minima and maxima of paths and labels would be personal data in a log that is kept.
    "delta.dataSkippingNumIndexedCols": "0",
    # The log is the history of the table: delta-rs would remove it after 30 days.
    "delta.enableExpiredLogCleanup": "false",
}
COLOUR, TRACE = re.compile(r"\x1b\[\d+m"), re.compile(r"\s*\d+: ")
CODE = re.compile(r"<Code>(\w+)</Code>")
"""In errors of delta-rs: colours, the calls that led to them, and the code of an answer of S3."""
LOOK_BACK = 100
"""Commits that are searched for a version that was published before."""
COMMIT_ATTEMPTS = 5
OPEN_ATTEMPTS = 7
"""Attempts to open a log in a bucket, before the last one: about three seconds in all."""


@dataclass(frozen=True)
class Table:
    """A table of the lake, which need not exist yet.

    Attributes:
        name: of the table.
        folder: that its parts and its log lie in.
    """

    name: str
    folder: Folder

    def latest(self) -> int:
        """Number of its last commit; `DRAFT` where it has none.

        Raises:
            LakeError: its folder is a symbolic link.
            DatasetError: the last commit is empty: it was torn by a power cut.
        """
        for uri in (self.folder.uri, join(self.folder.uri, LOG)):
            if self.folder.storage.is_link(uri):
                raise LakeError(
                    f"{uri} is a symbolic link: its files would lie outside the lake, where no "
                    "erasure looks for them. Replace it by a folder, and move its files there."
                )
        entries = self.entries()
        if not entries:
            return DRAFT
        last = max(entries)
        if not entries[last]:
            raise self._damaged("its last commit is empty")
        return last

    def entries(self) -> dict[int, int]:
        """Number -> size in bytes of every commit, as our own storage lists them."""
        found = self.folder.storage.sizes(join(self.folder.uri, LOG))
        return {
            int(match[1]): size for name, size in found.items() if (match := ENTRY.fullmatch(name))
        }

    def entry(self, number: int) -> str:
        """URI of a commit."""
        return join(self.folder.uri, LOG, f"{number:020d}.json")

    def open(self, number: int) -> Snapshot:
        """The version of a number.

        Raises:
            DatasetError: it is not a publish, or damaged.
            LakeError: it cannot be read now, or S3Error.
        """
        delta = self._delta(number)
        with self._reading(f"commit {number}"):
            info = self._info(number)
            commit, files = _commit(info), _files(delta)
            schema = pa.schema(delta.schema().to_arrow())
        if commit is None:
            raise self._damaged(f"commit {number} was not made by this project")
        if not _is_sealed(info, files):
            raise self._damaged(f"commit {number} is not what was written")
        return Snapshot(self.folder, self.name, schema, number, commit, files)

    def publishes(self, limit: int | None = LOOK_BACK) -> Iterator[tuple[int, Commit]]:
        """Number and metadata of what was published, the newest first. Raises DatasetError."""
        if (last := self.latest()) == DRAFT:
            return
        for number, commit in self._history(last, limit):
            if not commit.recipe:
                return  # withdrawn: nothing before it may be used again
            yield number, commit

    def history(self, limit: int | None = None) -> list[tuple[int, Commit]]:
        """Number and metadata of everything that was ever published, the newest first."""
        if (last := self.latest()) == DRAFT:
            return []
        return list(self._history(last, limit))

    def _history(self, last: int, limit: int | None) -> Iterator[tuple[int, Commit]]:
        found = self._newest_first(last, limit, self.commit)
        return ((number, commit) for number, commit in found if commit)

    def named(self, limit: int = LOOK_BACK) -> Iterator[set[str]]:
        """Names of the parts that each commit adds or removes, the newest first.

        Raises:
            DatasetError: a commit is damaged.
        """

        def names(number: int) -> set[str]:
            with self._reading(f"commit {number}"):
                actions = self._actions(number)
                return {
                    it[kind]["path"] for it in actions for kind in ("add", "remove") if kind in it
                }

        return (found for _, found in self._newest_first(self.latest(), limit, names))

    def _newest_first(
        self, last: int, limit: int | None, read: Callable[[int], T]
    ) -> Iterator[tuple[int, T]]:
        """Reads the commits ourselves, ever more of them at once.

        The `history` of delta-rs lets no other thread run while it waits for a bucket, so that no
        lease would be renewed, and it counts wrongly where others have committed meanwhile.
        """
        numbers = iter(range(last, -1 if limit is None else max(last - limit, -1), -1))
        size = 1
        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            while some := list(islice(numbers, size)):
                yield from zip(some, pool.map(read, some), strict=True)
                size = min(2 * size, READS_IN_FLIGHT)

    def current(self) -> Snapshot | None:
        """What was published last, or None. Raises DatasetError, or LakeError."""
        number = self.newest()
        return None if number is None else self.open(number)

    def newest(self) -> int | None:
        """Number of what was published last, or None. Raises DatasetError, or LakeError."""
        if (last := self.latest()) == DRAFT:
            return None
        if commit := self.commit(last):  # nearly always, the last one is ours
            return last if commit.recipe else None
        return next((number for number, _ in self.publishes(None)), None)

    def commit(self, number: int) -> Commit | None:
        """Metadata of a commit, without its files; None where others made it.

        Raises:
            DatasetError: it is gone, or damaged.
        """
        with self._reading(f"commit {number}"):
            return _commit(self._info(number))

    def publish(self, draft: Snapshot, siblings: Mapping[str, int]) -> int:
        """Makes a draft the current version, by one commit, and returns its number.

        Args:
            draft: its parts must all be there.
            siblings: numbers of the tables that were made with it, by name.

        Raises:
            DatasetError: a part of the draft is gone.
            ConflictError: another run published something else since the draft was asked for.
            LakeError: the table cannot be written, or S3Error.
        """
        storage = self.folder.storage
        if draft.files:
            storage.sync(self.folder.uri)
        for _ in range(COMMIT_ATTEMPTS):
            last = self.latest()
            # Who was faster with the same recipe has published what this run would have.
            for number, commit in self._since(draft.follows, last):
                if commit.recipe == draft.commit.recipe and commit.recipe:
                    return number
                raise self._conflict(draft)
            draft.check()  # only now: parts may have gone because another run has published
            commit = {**asdict(draft.commit), "siblings": dict(siblings)}
            metadata = {PREFIX + key: json.dumps(commit[key]) for key in commit}
            metadata[NUMBER] = str(last + 1)
            try:
                self._commit(draft, last, {**metadata, SEAL: _seal(metadata, draft.files)})
            except (CommitFailedError, ConflictError):
                continue  # somebody was faster: see who
            except (DeltaError, OSError) as error:
                raise LakeError(
                    f"{self.folder.uri} cannot be published to ({_short(error)}). Free space or "
                    "grant the permission to write there; then run again: what is finished is kept."
                ) from None  # it quotes all that a server answers
            self._sync(last + 1)
            return last + 1
        raise self._conflict(draft)

    def _since(self, number: int, last: int) -> Iterator[tuple[int, Commit]]:
        """What was published, or withdrawn, after one commit and up to another."""
        return self._history(last, max(0, last - number))

    def _commit(self, draft: Snapshot, last: int, metadata: dict[str, str]) -> None:
        if last == DRAFT:
            lines = _first_commit(draft, metadata)
            self.folder.storage.swap(self.entry(0), lines, expected=None)
            return
        delta = self._delta(last)
        current = _files(delta)
        self._check_listed(last, current)
        # delta-rs removes what a schema change replaces by itself, and refuses to do so when asked.
        changed = pa.schema(delta.schema().to_arrow()) != _delta_schema(draft.schema)
        listed = {} if changed else {file.name: file for file in current}
        wanted = {file.name for file in draft.files}
        actions: list[AddAction | RemoveAction] = [
            _add(file) for file in draft.files if file.name not in listed
        ]
        actions += [_remove(file) for name, file in listed.items() if name not in wanted]
        delta.create_write_transaction(
            actions,
            "overwrite" if changed else "append",
            Schema.from_arrow(draft.schema),
            commit_properties=CommitProperties(custom_metadata=metadata, max_commit_retries=0),
        )

    def _check_listed(self, number: int, files: Iterable[File]) -> None:
        """Compares what delta-rs lists with what our own client reads.

        That one is held to the bucket, its region and its owner, and delta-rs knows no owner. Our
        own commits are sealed; those of others that follow are replayed.

        Raises:
            LakeError: they differ.
        """
        listed: dict[str, File] = {}
        others: list[list[Any]] = []
        with self._reading(f"commit {number}"):
            for earlier in range(number, -1, -1):
                actions = self._actions(earlier)
                info = _replay(actions, {})
                if _own(info):
                    base = files if earlier == number else _files(self._delta(earlier))
                    sealed = _is_sealed(info, base)
                    listed = {file.name: file for file in base}
                    break
                others.insert(0, actions)
            else:
                sealed = True
            for actions in others:
                _replay(actions, listed)
        found = {unquote(file.name): file.bytes for file in files}
        read = {unquote(name): file.bytes for name, file in listed.items()}
        if not sealed or found != read:
            raise LakeError(
                f"delta-rs reads another log at {self.folder.uri} than this project's own client: "
                "something answers the two differently. Nothing was published. See that the bucket "
                "is your own, and which proxy the environment names; then run again."
            )

    def _sync(self, number: int) -> None:
        """Makes a commit survive a power cut: its file, and the folders that name it."""
        storage = self.folder.storage
        log = join(self.folder.uri, LOG)
        for uri in (self.entry(number), log, self.folder.uri, self.folder.uri.rpartition("/")[0]):
            storage.sync(uri)

    def damage(self, doubted: Collection[int]) -> list[str]:
        """What has to go so that the log can be read again: a log has no checksums.

        It is replayed, and compared with what its commits say of themselves. Checkpoints say
        nothing that the log does not; what follows a damaged commit cannot be read without it.

        Args:
            doubted: numbers of versions that cannot be opened.

        Returns:
            URIs of files; none where nothing is wrong.
        """
        log = join(self.folder.uri, LOG)
        names = self.folder.storage.sizes(log)
        checkpoints = [join(log, name) for name in sorted(names) if CHECKPOINT in name]
        numbers = sorted(self.entries())
        try:
            self.newest()
            in_doubt = set(doubted)
        except DatasetError:
            in_doubt = set(numbers)
        listed: dict[str, File] = {}
        for position, number in enumerate(numbers):
            try:
                with self._reading(f"commit {number}"):
                    info = self._replayed(number, listed)
                whole = number not in in_doubt or _is_sealed(info, listed.values())
            except DatasetError:
                whole = False
            if not whole or number != position:
                return [*checkpoints, *map(self.entry, numbers[position:])]
        return checkpoints if in_doubt else []

    def _replayed(self, number: int, listed: dict[str, File]) -> Mapping[str, Any]:
        """What a commit says of itself; what it adds and removes is done to `listed`."""
        return _replay(self._actions(number), listed)

    def _info(self, number: int) -> Mapping[str, Any]:
        """What a commit says of itself, from its own file."""
        found = (action["commitInfo"] for action in self._actions(number) if "commitInfo" in action)
        return next(found, {})

    def _actions(self, number: int) -> list[Any]:
        """A commit, line by line. Raises ValueError where it is empty, or damaged."""
        lines = self.folder.storage.read(self.entry(number)).splitlines()
        if not lines:
            raise ValueError("it is empty")
        actions = [json.loads(line) for line in lines]
        if not all(isinstance(action, dict) for action in actions):
            raise ValueError("it has a line that is no action")
        return actions

    def _delta(self, number: int) -> DeltaTable:
        """The log up to a commit. A handle does not follow later ones."""
        options = self.folder.storage.delta_options()
        with self._reading("its log"):
            # delta-rs asks a bucket again where it is busy, but not where its answer breaks off.
            for attempt in range(OPEN_ATTEMPTS if options else 0):
                try:
                    return DeltaTable(self.folder.uri, version=number, storage_options=options)
                except FileNotFoundError:
                    raise
                except OSError as error:
                    if CODE.search(str(error)):
                        raise  # a whole answer: a refusal
                    time.sleep(min(0.05 * 2**attempt, 1.0))
            return DeltaTable(self.folder.uri, version=number, storage_options=options)

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except READ_ERRORS as error:
            raise self._damaged(f"{what} cannot be read ({_short(error)})") from error
        except OSError as error:
            raise LakeError(
                f"{self.folder.uri} cannot be read: {what} ({_short(error)}). It need not be "
                "damaged. See that it can be reached and may be read; then run again."
            ) from None  # it quotes all that a server answers

    def _damaged(self, what: str) -> DatasetError:
        return DatasetError(f"{self.name} ({self.folder.uri}) is damaged: {what}. {REPAIR}")

    def _conflict(self, draft: Snapshot) -> ConflictError:
        return ConflictError(
            f"another run published {self.name} while this one was at work. What it published is "
            f"current; the parts of this run's version {draft.version} stay in the lake. "
            f"Materialise {self.name} again to make it current: nothing is computed twice."
        )


def _replay(actions: Iterable[Mapping[str, Any]], listed: dict[str, File]) -> Mapping[str, Any]:
    """What a commit says of itself; what it adds and removes is done to `listed`."""
    info: Mapping[str, Any] = {}
    for action in actions:
        info = action.get("commitInfo", info)
        if add := action.get("add"):
            rows = json.loads(add.get("stats") or "{}").get("numRecords", 0)  # ours have it
            listed[add["path"]] = File(add["path"], add["size"], rows)
        if remove := action.get("remove"):
            listed.pop(remove["path"], None)
    return info


def _first_commit(draft: Snapshot, metadata: Mapping[str, str]) -> bytes:
    """The log's first entry. delta-rs would record in it the folder that the table lies in."""
    now = int(time.time() * 1000)
    lines: list[Mapping[str, Any]] = [
        {"commitInfo": {"timestamp": now, "operation": "CREATE TABLE", **metadata}},
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {
            "metaData": {
                "id": str(uuid.uuid4()),
                "name": draft.name,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": Schema.from_arrow(draft.schema).to_json(),
                "partitionColumns": [],
                "configuration": CONFIGURATION,
                "createdTime": now,
            }
        },
        *({"add": _add_fields(file)} for file in draft.files),
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _add_fields(file: File) -> dict[str, Any]:
    return {
        "path": file.name,
        "partitionValues": {},
        "size": file.bytes,
        "modificationTime": int(time.time() * 1000),
        "dataChange": True,
        "stats": json.dumps({"numRecords": file.rows}),
    }


def _add(file: File) -> AddAction:
    fields = _add_fields(file)
    return AddAction(
        path=fields["path"],
        size=fields["size"],
        partition_values={},
        modification_time=fields["modificationTime"],
        data_change=True,
        stats=fields["stats"],
    )


def _remove(file: File) -> RemoveAction:
    return RemoveAction(file.name, True, int(time.time() * 1000), file.bytes, {})  # noqa: FBT003


def _files(delta: DeltaTable) -> tuple[File, ...]:
    """All parts of a version, in the order of their names."""
    # Not `pa.table`: to see whether it was given a frame, it would import pandas.
    actions = pa.RecordBatchReader.from_stream(delta.get_add_actions(flatten=True)).read_all()
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    return tuple(sorted((File(*row) for row in zip(*columns, strict=True)), key=lambda it: it.name))


def _delta_schema(schema: pa.Schema) -> pa.Schema:
    """A schema as it comes back from a log."""
    return pa.schema(Schema.from_arrow(schema).to_arrow())


def _own(info: Mapping[str, Any]) -> dict[str, str]:
    """What we say in a commit, but for the seal."""
    return {key: it for key, it in info.items() if key.startswith(PREFIX) and key != SEAL}


def _commit(info: Mapping[str, Any]) -> Commit | None:
    """Our metadata of a commit; None where others made it. Raises ValueError: it is damaged."""
    own = _own(info)
    if not own and SEAL not in info:
        return None
    try:
        fields = {key: json.loads(it) for key, it in own.items() if key != NUMBER}
        return Commit(**{key.removeprefix(PREFIX): it for key, it in fields.items()})
    except TypeError as error:
        raise ValueError("a commit is not what was written") from error


def _is_sealed(info: Mapping[str, Any], files: Iterable[File]) -> bool:
    """Whether a commit is what was written and lists nothing but parts, or was made by others."""
    if not _own(info) and SEAL not in info:
        return True
    listed = tuple(files)
    parts = all(PART_NAME.fullmatch(file.name) for file in listed)
    return parts and info.get(SEAL) == _seal(info, listed)


def _seal(info: Mapping[str, Any], files: Iterable[File]) -> str:
    """Hash of what we say in a commit and of the parts of its version: 16 hexadecimal digits."""
    listed = sorted((file.name, file.bytes, file.rows) for file in files)
    said = json.dumps([sorted(_own(info).items()), listed])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _short(error: Exception) -> str:
    """What delta-rs says, in one line, without its colours, its trace and what a server answered.

    The answer of a server quotes the request; its code is all that is kept of it.
    """
    lines = COLOUR.sub("", str(error)).splitlines()
    own = takewhile(lambda line: "<" not in line and not TRACE.match(line), lines)
    words = [line.strip(" ↳") for line in own]
    return ": ".join([*filter(None, words), *CODE.findall(str(error))]) or type(error).__name__
