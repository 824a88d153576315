"""Real components, small: drawn photos, the embedded weights, a Spark session with two cores."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from botocore.retries.standard import ExponentialBackoff
from filelock import FileLock
from pyspark.sql import SparkSession

from fruits_assets.assets import common
from fruits_assets.assets.authorship import Authorship
from fruits_assets.assets.places import Source, WeightsOrigin
from fruits_assets.checks import CHECKS
from fruits_assets.core import weights
from fruits_assets.definitions import ASSETS
from fruits_assets.lake.io_manager import LakeIOManager
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.sample.drawing import write_sample
from fruits_assets.spark.local import LocalSpark
from fruits_assets.storage import s3 as storage_s3
from fruits_assets_tests import s3
from fruits_assets_tests.browser import browser_fixture, opened_fixture  # noqa: F401
from fruits_assets_tests.emr import emr_service_fixture, fresh_emr_fixture  # noqa: F401
from fruits_assets_tests.models import Conversions
from fruits_assets_tests.places import Bucket, Folder, Place

REPOSITORY = Path(__file__).parent.parent
SERVERS = ["versitygw", pytest.param("moto", marks=pytest.mark.slow)]
"""Fast tests that any S3 server will do for are run on the faster one, all tests on both."""
THE_SAME_EVERYWHERE = pytest.mark.parametrize(
    "_kind",
    ["folder", *(pytest.param(name, marks=pytest.mark.slow) for name in ("versitygw", "moto"))],
    indirect=True,
)
"""For tests with a `place` whose kind changes nothing: the fast tier runs them on a folder only."""

LONGEST = (
    *("test_emr_job", "test_yarn", "test_docs_emr", "test_serverless_job", "test_failures"),
    *("test_master", "test_ui", "test_workflow", "test_s3_job", "test_spark_versions"),
    *("test_job", "test_automation", "test_deck", "test_increments", "test_s3", "test_assets"),
    *("test_lake", "test_figures", "test_weights", "test_readers", "test_emr_check"),
    *("test_decoder", "test_reduction", "test_notebook", "test_ingest", "test_bucket"),
    *("test_deliverables", "test_history", "test_cli", "test_lifecycle", "test_table"),
    *("test_presentation", "test_checks", "test_gallery", "test_page", "test_commands"),
)
"""Files of tests that take longest: they begin first, so that no worker ends alone with one."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, each group in the random order that it has."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _nobodys_credentials() -> Iterator[None]:
    """No test ever reaches the account of whoever runs it, nor does any process that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in s3.CREDENTIALS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_end_processes() -> None:
    """Also where the tests run in the background: a shell lets programs ignore Ctrl-C there.

    Dagster handles SIGTERM as Ctrl-C, and every process that a test starts would ignore both.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_files() -> Iterator[None]:
    """An erasure searches temporary files: those of tests beside this one hold the same photos."""
    with tempfile.TemporaryDirectory(prefix="fruits-tests-") as folder:
        Path(folder).chmod(0o755)  # for every user, as the system's own
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", folder)
            patch.setattr(tempfile, "tempdir", folder)
            yield


@pytest.fixture(scope="session")
def _moto(_nobodys_credentials: None) -> Iterator[s3.Server]:
    with s3.moto() as server:
        yield server


@pytest.fixture(scope="session")
def _versitygw(
    tmp_path_factory: pytest.TempPathFactory, _nobodys_credentials: None
) -> Iterator[s3.Server]:
    with s3.versitygw(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> s3.Server:
    """A real S3 server; the tests of a module run on one after the other."""
    return request.getfixturevalue(f"_{request.param}")


@pytest.fixture
def bucket(server: s3.Server) -> Iterator[Bucket]:
    """An empty prefix of a new bucket."""
    with _connected(server) as bucket:
        yield bucket


@pytest.fixture(scope="module", params=["folder", *SERVERS])
def _kind(request: pytest.FixtureRequest) -> s3.Server | None:
    return None if request.param == "folder" else request.getfixturevalue(f"_{request.param}")


@pytest.fixture
def place(_kind: s3.Server | None, tmp_path: Path) -> Iterator[Place]:
    """An empty place of each kind: what holds of one holds of all."""
    if _kind is None:
        (tmp_path / "place").mkdir()
        yield Folder(str(tmp_path / "place"))
        return
    with _connected(_kind) as bucket:
        yield bucket


@pytest.fixture(scope="session")
def _gates() -> Iterator[Callable[[str], s3.Gate]]:
    """A gate per server, for its address: clients are made for an address."""
    with contextlib.ExitStack() as stack:
        yield cache(lambda endpoint: stack.enter_context(s3.Gate(before=endpoint)))


@pytest.fixture
def gate(server: s3.Server, _gates: Callable[[str], s3.Gate]) -> Iterator[s3.Gate]:
    """Before a real server: what the pipeline asks of its buckets passes through it."""
    gate = _gates(server.endpoint)
    with s3.used(gate.endpoint):
        yield gate
    gate.open()


@pytest.fixture
def gated(gate: s3.Gate, server: s3.Server) -> Bucket:
    """An empty prefix of a new bucket, which the pipeline reaches through the gate."""
    bucket = Bucket(f"s3://{server.bucket()}/a/prefix", server)
    assert bucket.opened
    gate.requests.clear()
    return bucket


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are repeated as often as ever, but without waiting long between."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_, **__: 0.01)
    monkeypatch.setattr(storage_s3, "_pause", lambda _: None)


@contextlib.contextmanager
def _connected(server: s3.Server) -> Iterator[Bucket]:
    with s3.used(server.endpoint):
        yield Bucket(f"s3://{server.bucket()}/a/prefix", server)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos, real weights and golden values, which the project itself does not hold."""
    folder = Path(os.environ.get("FRUITS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there (set FRUITS_SHARED_DATA to the folder that holds it)")
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that every user may enter, which those of `tmp_path` are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        for path in Path(folder).glob("**/"):
            path.chmod(0o755)


def made_once(
    factory: pytest.TempPathFactory, worker_id: str, name: str, make: Callable[[Path], None]
) -> Path:
    """A folder that all tests read: the first worker that needs it makes it, the others wait.

    Args:
        factory: of pytest.
        worker_id: of pytest-xdist; `master` where there are no workers.
        name: of the folder.
        make: fills it.
    """
    base = factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / f"shared-{name}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A source of drawn photos: 15 classes, 4 Training and 2 Test photos each. Do not change it."""

    def draw(folder: Path) -> None:
        write_sample(folder / "photos", photos_per_class=(4, 2))

    return made_once(tmp_path_factory, worker_id, "source", draw) / "photos"


@pytest.fixture(scope="session")
def session() -> Iterator[SparkSession]:
    """The Spark session that all tests of this process share."""
    target = LocalSpark(lake=LakeResource(base="unused"), master="local[2]")
    session = target.session()
    yield session
    session.stop()


@dataclass(frozen=True)
class Pipeline:
    """The assets as Dagster runs them, on a lake of the test's own."""

    lake: Lake
    source: Path
    weights: str = "sample"
    checks: Sequence[dg.AssetChecksDefinition] = ()

    @property
    def resources(self) -> dict[str, Any]:
        """As the definitions compose them."""
        lake = LakeResource(base=self.lake.base, keep_versions=self.lake.keep_versions)
        return {
            "authorship": Authorship(month="2026-11"),
            "io_manager": LakeIOManager(lake=lake),
            "lake": lake,
            "spark": LocalSpark(lake=lake, master="local[2]"),
            "source": Source(place=str(self.source), lake=self.lake.base),
            "weights": WeightsOrigin(place=self.weights),
        }

    def run(
        self,
        *selection: str,
        config: Mapping[str, Any] | None = None,
        instance: dg.DagsterInstance | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialises some assets, or all, with the checks that were asked for.

        Args:
            *selection: asset selection strings; everything without any.
            config: op name -> its config.
            instance: of Dagster, which is shown everything. Without one, no pictures are drawn:
                they take seconds, and most tests do not look at them.
        """
        chosen = dg.AssetSelection.all()
        if selection:
            chosen = dg.AssetSelection.from_coercible(list(selection))
        with pytest.MonkeyPatch.context() as patch:
            if instance is None:
                draw_no_pictures(patch)
            return dg.materialize(
                [*ASSETS, *self.checks],
                selection=chosen,
                resources=self.resources,
                run_config={"ops": {op: {"config": dict(it)} for op, it in (config or {}).items()}},
                instance=instance or _unseen(),
                raise_on_error=False,
            )


@cache
def _unseen() -> dg.DagsterInstance:
    """The instance of all runs that nobody looks at: making one takes longer than many a run."""
    return dg.DagsterInstance.ephemeral()


def draw_no_pictures(patch: pytest.MonkeyPatch) -> None:
    """Dagster has shown every version before, with no picture."""
    patch.setattr(common, "_shown_before", lambda *_: {})


def failure(result: dg.ExecuteInProcessResult) -> str:
    """The sentence that the person who started a failed run reads first."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.user_failure_data or event.step_failure_data.error)


@pytest.fixture(scope="session")
def _model_lake(tmp_path_factory: pytest.TempPathFactory, photos: Path, worker_id: str) -> Path:
    """A lake with only the embedded model in it: TensorFlow converts it once for many runs."""

    def convert(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            conversions = Conversions(REPOSITORY / ".cache" / "models", weights.convert)
            patch.setattr(weights, "convert", conversions)
            assert Pipeline(Lake.at(str(folder / "lake")), photos).run("model_weights").success

    return made_once(tmp_path_factory, worker_id, "model", convert) / "lake"


@pytest.fixture
def pipeline(tmp_path: Path, photos: Path, session: SparkSession, _model_lake: Path) -> Pipeline:
    """The pipeline on the drawn photos, with nothing but the model computed yet."""
    base = tmp_path / "lake"
    shutil.copytree(_model_lake, base)
    return Pipeline(Lake.at(str(base)), photos)


@pytest.fixture(scope="session")
def _finished_home(
    tmp_path_factory: pytest.TempPathFactory,
    photos: Path,
    session: SparkSession,
    _model_lake: Path,
    worker_id: str,
) -> Path:
    """A folder with the lake of a whole run, with all checks, and with what Dagster saw of it."""

    def run(folder: Path) -> None:
        shutil.copytree(_model_lake, folder / "lake")
        pipeline = Pipeline(Lake.at(str(folder / "lake")), photos, checks=CHECKS)
        with dg.DagsterInstance.ephemeral() as instance:
            result = pipeline.run(instance=instance)
        seen = (result.dagster_run, result.all_events)
        for name, value in zip(SEEN, seen, strict=True):
            (folder / name).write_text(dg.serialize_value(value))

    return made_once(tmp_path_factory, worker_id, "finished", run)


SEEN = ("run.json", "events.json")


@pytest.fixture(scope="session")
def finished(_finished_home: Path, photos: Path) -> tuple[Pipeline, dg.ExecuteInProcessResult]:
    """A whole run on the drawn photos, with all checks, for tests that only look at it."""
    run, events = (dg.deserialize_value((_finished_home / name).read_text()) for name in SEEN)
    assert isinstance(run, dg.DagsterRun)
    assert isinstance(events, list)
    seen = [event for event in events if isinstance(event, dg.DagsterEvent)]
    assert len(seen) == len(events)
    # The job only says what outputs are called, and none was kept.
    job = dg.GraphDefinition("finished").to_job()
    pipeline = Pipeline(Lake.at(str(_finished_home / "lake")), photos, checks=CHECKS)
    return pipeline, dg.ExecuteInProcessResult(seen, run, None, job)


@pytest.fixture
def own(_finished_home: Path, photos: Path, tmp_path: Path) -> Pipeline:
    """A finished run on a source of the test's own."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(_finished_home / "lake", tmp_path / "lake")
    return Pipeline(Lake.at(str(tmp_path / "lake")), tmp_path / "photos")
