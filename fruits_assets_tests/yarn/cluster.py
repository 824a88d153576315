"""YARN's daemons as processes of this machine: started, looked at, harmed and ended.

with running(Yarn(folder, [Machine("CORE"), Machine("TASK")], os.environ)) as yarn:
    environment = {"HADOOP_CONF_DIR": str(yarn.conf)}  # of a client such as spark-submit
    yarn.switch_off(yarn.machines[1])
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from xml.etree import ElementTree as ET

import psutil
import pyspark

from fruits_assets.spark import jars
from fruits_assets_tests.waiting import eventually

PINNED = Path(__file__).with_name("jars.json")
SERVICE = Path(__file__).with_name("ShuffleService.java")
MACHINE_MB, MACHINE_CORES = 12_288, 4
"""An xlarge machine of EMR, as YARN accounts for it."""
LABELS = ("CORE", "TASK")
"""That EMR knows, whether or not a machine has them."""
WEB_PORT = 8088
SERVICES = ("ResourceManager", "NodeManager")
MAIN = "org.apache.hadoop.yarn.server.{folder}.{name}"
JVM = (
    *("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in ("java.lang", "java.util", "java.net", "java.io", "sun.security.krb5")
    ),
)
LOGGING = """\
log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
"""
SHUFFLE_JARS = (
    *("spark-network-", "spark-common-", "scala-library", "netty-", "jackson-", "metrics-core"),
    *("guava-", "failureaccess", "gson", "tink", "protobuf-java", "commons-", "slf4j-api"),
    *("log4j-", "leveldbjni", "rocksdbjni", "bcp", "jsr305", "zstd-jni", "RoaringBitmap"),
)
"""Beginnings of the names of the jars of PySpark that its shuffle service is made of."""


def _network() -> str:
    numbers = random.SystemRandom()
    return f"127.{numbers.randrange(1, 255)}.{numbers.randrange(1, 255)}"


@dataclass
class Machine:
    """A machine with a NodeManager.

    Attributes:
        label: the partition that it says it belongs to; empty for YARN's default partition.
        megabytes: that YARN may give to containers.
        address: in 127.0.0.0/8, given when the cluster starts.
    """

    label: str = ""
    megabytes: int = MACHINE_MB
    address: str = ""


@dataclass
class Yarn:
    """A cluster.

    Attributes:
        folder: of all its files.
        machines: with NodeManagers.
        environment: of the daemons, and so of all containers.
        site: further settings of YARN, by EMR's names.
        scheduler: further settings of its scheduler.
        network: the first three numbers of its addresses.
    """

    folder: Path
    machines: Sequence[Machine]
    environment: Mapping[str, str]
    site: Mapping[str, str] = field(default_factory=dict)
    scheduler: Mapping[str, str] = field(default_factory=dict)
    # A network of its own, so that each daemon has the port that it has everywhere.
    network: str = field(default_factory=_network)
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """`HADOOP_CONF_DIR` of clients."""
        return self.folder / "conf" / self.primary

    @property
    def primary(self) -> str:
        """Address of the ResourceManager."""
        return f"{self.network}.1"

    @property
    def excluded(self) -> Path:
        """The file with the machines that YARN is to do without."""
        return self.folder / "excluded"

    def ask(self, path: str, body: Mapping[str, Any] | None = None, method: str = "GET") -> Any:
        """Calls the ResourceManager's REST API, as an administrator."""
        url = f"http://{self.primary}:{WEB_PORT}/ws/v1/cluster/{path}?user.name={_user()}"
        data = json.dumps(body).encode() if body is not None else None
        request = Request(url, data, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=30) as answer:  # noqa: S310 - of loopback
            content = answer.read()
        return json.loads(content) if content.startswith(b"{") else content.decode()

    def applications(self) -> list[dict[str, Any]]:
        """All applications so far, as YARN describes them."""
        return (self.ask("apps")["apps"] or {}).get("app", [])

    def active(self) -> int:
        """How many machines there are to work with."""
        return self.ask("metrics")["clusterMetrics"]["activeNodes"]

    def containers(self, machine: Machine) -> list[psutil.Process]:
        """The processes of containers on a machine: each has its files below the machine's."""
        return [one for one in _below(self.files(machine)) if "NodeManager" not in _command(one)]

    def files(self, machine: Machine) -> Path:
        """Where a machine keeps what containers work with."""
        return self.folder / "machines" / machine.address

    def switch_off(self, machine: Machine) -> None:
        """Kills all that runs on a machine, at once and without notice."""
        daemon = self._daemons[machine.address]
        daemon.kill()
        _kill(_below(self.files(machine)))
        daemon.wait()

    def decommission(self, machine: Machine) -> None:
        """Takes a machine out of the cluster, as an administrator does."""
        self.excluded.write_text(f"{machine.address}\n")
        self.administer("-refreshNodes")

    def administer(self, *arguments: str) -> None:
        """Runs `yarn rmadmin`, which is among the jars of Spark."""
        subprocess.run(
            ["java", *JVM, "org.apache.hadoop.yarn.client.cli.RMAdminCLI", *arguments],
            env={**self.environment, "CLASSPATH": f"{self.conf}:{pyspark.__path__[0]}/jars/*"},
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Starts all daemons, and waits until all machines are at work."""
        STARTED.append(self)
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, machine in enumerate(self.machines, start=2):
            machine.address = f"{self.network}.{number}"
        self.excluded.write_text("")
        queue = {**_queue(self._labels), **self.scheduler}
        _configure(self.folder / "conf" / self.primary, self._site(), queue)
        self._start("resourcemanager", "ResourceManager", self.primary)
        eventually(self._answers)
        names = [{"name": name, "exclusivity": False} for name in self._labels]
        self.ask("add-node-labels", {"nodeLabelInfo": names}, "POST")
        for machine in self.machines:
            site = {**self._site(), **self._machine(machine)}
            _configure(self.folder / "conf" / machine.address, site, {})
            self._start("nodemanager", "NodeManager", machine.address)
        eventually(lambda: self.active() == len(self.machines))

    def stop(self) -> None:
        """Ends all daemons and containers."""
        for daemon in self._daemons.values():
            daemon.kill()
        _kill(_below(self.folder))
        for daemon in self._daemons.values():
            daemon.wait()
        STARTED.remove(self)

    def _answers(self) -> bool:
        if (code := self._daemons[self.primary].poll()) is not None:
            log = (self.folder / f"{self.primary}.log").read_text()[-3000:]
            raise RuntimeError(f"the ResourceManager ended with {code}:\n{log}")
        with contextlib.suppress(OSError):
            return bool(self.ask("info"))
        return False

    def _start(self, folder: str, name: str, address: str) -> None:
        conf = self.folder / "conf" / address
        path = ":".join([str(conf), *map(str, _jars())])
        main = MAIN.format(folder=folder, name=name)
        with (self.folder / f"{address}.log").open("wb") as log:
            self._daemons[address] = subprocess.Popen(
                ["java", *JVM, "-cp", path, main],
                cwd=conf,
                env={
                    **self.environment,
                    "HADOOP_CONF_DIR": str(conf),
                    "SPARK_LOCAL_IP": address,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def _labels(self) -> list[str]:
        return sorted({*LABELS, *(machine.label for machine in self.machines if machine.label)})

    def _site(self) -> dict[str, str]:
        """Settings that all daemons and clients share."""
        manager = {"hostname": self.primary, "bind-host": self.primary}
        return {
            **{f"yarn.resourcemanager.{name}": value for name, value in manager.items()},
            "yarn.resourcemanager.nodes.exclude-path": str(self.excluded),
            "yarn.resourcemanager.scheduler.class": (
                "org.apache.hadoop.yarn.server.resourcemanager.scheduler.capacity.CapacityScheduler"
            ),
            "yarn.scheduler.maximum-allocation-mb": str(MACHINE_MB),
            # For 10 s after its start, it would not look at how large its machines are.
            "yarn.resourcemanager.work-preserving-recovery.scheduling-wait-ms": "0",
            "yarn.scheduler.minimum-allocation-mb": "32",
            "yarn.node-labels.enabled": "true",
            "yarn.node-labels.configuration-type": "distributed",
            "yarn.node-labels.fs-store.root-dir": (self.folder / "labels").as_uri(),
            **_apaches(self.site),
        }

    def _machine(self, machine: Machine) -> dict[str, str]:
        service = "yarn.nodemanager.aux-services"
        built = [str(_service()), *map(str, _shuffle_jars())]
        labels = "yarn.nodemanager.node-labels.provider"
        label = {labels: "config", f"{labels}.configured-node-partition": machine.label}
        settings = {
            "hostname": machine.address,
            "bind-host": machine.address,
            "resource.memory-mb": str(machine.megabytes),
            "resource.cpu-vcores": str(MACHINE_CORES),
            "local-dirs": str(self.files(machine) / "local"),
            "log-dirs": str(self.files(machine) / "logs"),
            # Disks of this machine may be fuller than those of a cluster's.
            "disk-health-checker.max-disk-utilization-per-disk-percentage": "99",
            # A container is killed for memory if this is asked for with these words.
            "pmem-check-enabled": "true",
            "vmem-check-enabled": "false",
            "resource.memory.enforced": "false",
            "container-monitor.interval-ms": "1000",
            "env-whitelist": ",".join([*self.environment.keys() - {"PATH"}, "SPARK_LOCAL_IP"]),
            # A whitelisted PATH is only a default, and bash has one of its own before it is read.
            "admin-env.PATH": self.environment["PATH"],
        }
        return {
            **{f"yarn.nodemanager.{name}": value for name, value in settings.items()},
            **(label if machine.label else {}),
            service: "spark_shuffle",
            f"{service}.spark_shuffle.class": "fruits.ShuffleService",
            f"{service}.spark_shuffle.classpath": ":".join(built),
        }


STARTED: list[Yarn] = []
"""Those that run."""
EMR_ONLY = {
    "yarn.node-labels.am.default-node-label-expression": (
        "yarn.resourcemanager.node-labels.am.default-node-label-expression"
    ),
}
"""Settings by EMR's name -> by Apache's."""


def stop_all() -> None:
    """Ends all that this process has started."""
    while STARTED:
        STARTED[-1].stop()


@contextlib.contextmanager
def running(yarn: Yarn) -> Iterator[Yarn]:
    """Runs a cluster; nothing of it stays alive.

    Raises:
        SparkError: Hadoop's jars cannot be fetched.
    """
    try:
        yarn.start()
        yield yarn
    finally:
        yarn.stop()


def _apaches(site: Mapping[str, str]) -> dict[str, str]:
    return {EMR_ONLY.get(name, name): value for name, value in site.items()}


def _queue(labels: Sequence[str]) -> dict[str, str]:
    """One queue that may take everything, on machines of every label."""
    root, queue = "yarn.scheduler.capacity.root", "yarn.scheduler.capacity.root.default"
    return {
        f"{root}.queues": "default",
        f"{queue}.capacity": "100",
        f"{queue}.maximum-capacity": "100",
        f"{root}.accessible-node-labels": "*",
        f"{queue}.accessible-node-labels": "*",
        **{
            f"{one}.accessible-node-labels.{label}.capacity": "100"
            for one in (root, queue)
            for label in labels
        },
    }


def _configure(folder: Path, site: Mapping[str, str], scheduler: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    core = {"fs.defaultFS": "file:///", "hadoop.http.staticuser.user": _user()}
    for name, settings in (
        ("core-site", core),
        ("yarn-site", site),
        ("capacity-scheduler", scheduler),
    ):
        (folder / f"{name}.xml").write_bytes(_xml(settings))
    (folder / "log4j.properties").write_text(LOGGING)


def _xml(settings: Mapping[str, str]) -> bytes:
    root = ET.Element("configuration")
    for name, value in settings.items():
        one = ET.SubElement(root, "property")
        ET.SubElement(one, "name").text = name
        ET.SubElement(one, "value").text = value
    return ET.tostring(root)


@cache
def _jars() -> list[Path]:
    return jars.fetched("yarn", pinned=PINNED)


def _shuffle_jars() -> list[Path]:
    folder = Path(find_spec("pyspark").origin).with_name("jars")  # type: ignore[union-attr,arg-type]
    return [jar for jar in folder.glob("*.jar") if jar.name.startswith(SHUFFLE_JARS)]


@cache
def _service() -> Path:
    """The folder of the compiled shuffle service, kept beside the jars that it is compiled with."""
    (compiler,) = jars.fetched("compiler", pinned=PINNED)
    made_from = SERVICE.read_bytes() + pyspark.__version__.encode() + PINNED.read_bytes()
    target = compiler.parent / f"shuffle-service-{hashlib.sha256(made_from).hexdigest()[:16]}"
    if not target.exists():
        path = ":".join(map(str, [*_shuffle_jars(), *_jars()]))
        command = ["java", "-jar", str(compiler), "--release", "17", "-nowarn", "-cp", path]
        with tempfile.TemporaryDirectory(dir=compiler.parent) as folder:
            compiled = Path(folder, "classes")
            subprocess.run([*command, "-d", str(compiled), str(SERVICE)], check=True)
            with contextlib.suppress(OSError):  # another process was faster
                compiled.rename(target)
    return target


def _below(folder: Path) -> list[psutil.Process]:
    """Processes that were started by daemons whose files lie in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment = process.environ()
            told = (environment.get(name, "") for name in ("LOCAL_DIRS", "HADOOP_CONF_DIR", "PWD"))
            if any(str(folder) in value for value in told):
                found.append(process)
    return found


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _user() -> str:
    return os.environ.get("USER") or "root"
