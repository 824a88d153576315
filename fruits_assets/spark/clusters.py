"""The clusters of a stack: one per run, started once, found by its name, ended for certain."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fruits_assets.core.errors import ConflictError, FruitsError, SparkError
from fruits_assets.spark.aws import emr_client, told
from fruits_assets.storage.base import Folder, join
from fruits_assets.storage.places import folder_at

LIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING")
DYING = ("TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS")
CLAIM_SECONDS = 120.0
"""Starting a cluster is one request: who has claimed to do it and has not by then, is dead."""
WAIT_SECONDS = 1.0
MEMORY = timedelta(days=7)
"""Clusters of a run are no older, and EMR need not list more of them."""
ENDED_AT_ONCE = 10
"""Clusters that TerminateJobFlows takes, at most."""
ENDED = "ended"
Launch = Callable[[], Mapping[str, Any]]
"""Gives the parameters of RunJobFlow; called only by the one process that starts the cluster."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that EMR lists.

    Attributes:
        id: as `j-...`.
        name: carries the run.
        state: as EMR names it.
        created_at: when it was asked for.
    """

    id: str
    name: str
    state: str
    created_at: datetime


class Clusters(ABC):
    """Where the steps of a run find their cluster; one subclass per way to come by it."""

    def __init__(self, region: str) -> None:
        self.region = region

    @property
    def client(self) -> Any:
        """boto3's client of EMR."""
        return emr_client(self.region)

    @abstractmethod
    def acquire(self, run: str, launch: Launch) -> str:
        """Id of the cluster that the steps of a run share.

        Args:
            run: id of the Dagster run.
            launch: what to start, if one has to be started.

        Raises:
            SparkError: there is none, and none can be started.
        """

    def describe(self, cluster: str) -> Mapping[str, Any]:
        """EMR's description of a cluster. Raises SparkError."""
        with told(self.region):
            return self.client.describe_cluster(ClusterId=cluster)["Cluster"]

    def state(self, cluster: str) -> str:
        """Of a cluster, as EMR names it. Raises SparkError."""
        return self.describe(cluster)["Status"]["State"]

    def instances(self, cluster: str) -> list[Mapping[str, Any]]:
        """All machines that a cluster has or had, as EMR lists them. Raises SparkError."""
        with told(self.region):
            pages = self.client.get_paginator("list_instances").paginate(ClusterId=cluster)
            return [instance for page in pages for instance in page["Instances"]]


class GivenCluster(Clusters):
    """A cluster that somebody else started, and ends."""

    def __init__(
        self, region: str, cluster: str, expected: Mapping[str, str] | None = None
    ) -> None:
        """Takes a cluster with some fields as `DescribeCluster` has them.

        Args:
            region: of AWS.
            cluster: its id.
            expected: name of a field -> its value.
        """
        super().__init__(region)
        self._cluster, self._expected = cluster, expected or {}

    def acquire(self, run: str, launch: Launch) -> str:  # noqa: ARG002, D102 - see Clusters
        described = self.describe(self._cluster)
        state = described["Status"]["State"]
        if state not in LIVE:
            raise SparkError(
                f"the cluster {self._cluster} is {state}. Set "
                "FRUITS_EMR_CLUSTER to one that is running, or leave it empty: then each run "
                "starts and ends its own."
            )
        for name, value in self._expected.items():
            if described.get(name) != value:
                raise SparkError(
                    f"the cluster {self._cluster} has {name} {described.get(name)!r}, and not "
                    f"{value!r}. Start one with `python -m fruits_assets.spark launch` "
                    "(docs/emr.md)."
                )
        if not _says_how_many_executors(described.get("Configurations", ())):
            raise SparkError(
                f"the cluster {self._cluster} does not say how many executors it has room for "
                "(spark.executor.instances in its spark-defaults). Start one with "
                "`python -m fruits_assets.spark launch` (docs/emr.md)."
            )
        return self._cluster


def _says_how_many_executors(configurations: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        one.get("Classification") == "spark-defaults"
        and "spark.executor.instances" in one.get("Properties", {})
        for one in configurations
    )


class OwnClusters(Clusters):
    """A cluster per run, started by whichever of the run's processes needs it first.

    A claim at `<pipes>/clusters/<run>.json`, written by a conditional put, elects who starts it; it
    then names the cluster. Claims of runs that have ended say so: no straggler starts another one.
    """

    def __init__(
        self,
        region: str,
        stack: str,
        pipes: str,
        kms_key: str | None = None,
        bucket_owner: str | None = None,
    ) -> None:
        super().__init__(region)
        self._stack, self._prefix = stack, f"fruits {stack} "
        self._place = join(pipes, "clusters")
        self._kms_key, self._bucket_owner = kms_key, bucket_owner

    def name(self, run: str) -> str:
        """Of the cluster of a run; `ListClusters` gives names, and no tags."""
        return f"{self._prefix}{run}"

    def run(self, cluster: Cluster) -> str:
        """Of a cluster of this stack, by its name."""
        return cluster.name.removeprefix(self._prefix)

    def acquire(self, run: str, launch: Launch) -> str:  # noqa: D102 - see Clusters
        unchanged_since = time.monotonic()
        seen = self._claim(run)
        while True:
            if seen == {ENDED: True}:
                raise SparkError(f"the run {run} has ended: no cluster is started for it any more.")
            if seen and "cluster" in seen:
                if seen["cluster"] and self.state(seen["cluster"]) in LIVE:
                    return seen["cluster"]
            elif seen and time.monotonic() - unchanged_since < CLAIM_SECONDS:
                time.sleep(WAIT_SECONDS)
                found = self._claim(run)
                if found != seen:
                    seen, unchanged_since = found, time.monotonic()
                continue
            mine = {"by": uuid.uuid4().hex}
            try:
                self._swap(run, mine, expected=seen)
            except ConflictError:
                seen, unchanged_since = self._claim(run), time.monotonic()
                continue
            return self._start(run, launch, mine)

    def release(self, run: str) -> list[str]:
        """Ends whatever was started for a run; returns the ids of what was still alive.

        May be called any number of times, by any process.

        Raises:
            SparkError: EMR refuses.
        """
        with contextlib.suppress(FruitsError):  # whatever ails S3, the cluster is ended
            self._close(run)
        return self._terminate(self._live_of(run))

    def _close(self, run: str) -> None:
        for _ in range(10):  # against the few processes of one run
            try:
                self._swap(run, {ENDED: True}, expected=self._claim(run))
            except ConflictError:
                continue
            return

    def of_run(self, run: str) -> list[str]:
        """Ids of all clusters that were started for a run, whatever has become of them."""
        since = datetime.now(UTC) - MEMORY
        return [one.id for one in self._listed(CreatedAfter=since) if one.name == self.name(run)]

    def live(self) -> list[Cluster]:
        """All clusters of this stack that are alive, the oldest first. Raises SparkError."""
        return self._listed(ClusterStates=list(LIVE))

    def _listed(self, **which: Any) -> list[Cluster]:
        with told(self.region):
            pages = self.client.get_paginator("list_clusters").paginate(**which)
            found = [cluster for page in pages for cluster in page["Clusters"]]
        own = [
            Cluster(
                one["Id"],
                one["Name"],
                one["Status"]["State"],
                one["Status"]["Timeline"]["CreationDateTime"].astimezone(UTC),
            )
            for one in found
            if one["Name"].startswith(self._prefix)
        ]
        return sorted(own, key=lambda one: (one.created_at, one.id))

    def sweep(self, older_than: timedelta, *, dry_run: bool) -> list[Cluster]:
        """Ends the clusters that are older than a bound, or only lists them. Raises SparkError."""
        bound = datetime.now(UTC) - older_than
        old = [one for one in self.live() if one.created_at < bound]
        self._terminate([] if dry_run else [one.id for one in old])
        return old

    def end(self, clusters: Sequence[str]) -> None:
        """Ends some clusters of this stack, all or none. Raises SparkError: one is not alive."""
        own = {one.id for one in self.live()}
        for cluster in clusters:
            if cluster not in own:
                raise SparkError(
                    f"{cluster} is no cluster of the stack {self._stack} that is alive: no cluster "
                    "was ended. `python -m fruits_assets.spark clusters` lists them."
                )
        self._terminate(clusters)

    def start(self, run: str, launch: Launch) -> str:
        """Starts a cluster whatever else there is, and returns its id. Raises SparkError."""
        parameters = {**launch(), "Name": self.name(run)}
        with told(self.region):
            return self.client.run_job_flow(**parameters)["JobFlowId"]

    def _start(self, run: str, launch: Launch, mine: Mapping[str, Any]) -> str:
        try:
            # Who claimed before may have started it and died before it could say so.
            own = self._live_of(run)
            cluster = own[0] if own else self.start(run, launch)
        except BaseException:
            with contextlib.suppress(FruitsError):  # others need not wait for us
                self._swap(run, {"cluster": None}, expected=mine)
            raise
        try:
            self._swap(run, {"cluster": cluster}, expected=mine)
        except ConflictError:
            return self._instead_of(cluster, run, launch)
        # A request that was repeated because its answer got lost has started two.
        self._terminate([one for one in self._live_of(run) if one != cluster])
        return cluster

    def _instead_of(self, cluster: str, run: str, launch: Launch) -> str:
        """What is used when the run has ended meanwhile, or somebody thought us dead.

        Whoever that was may have found our cluster, and use it.
        """
        used = ""
        try:
            used = self.acquire(run, launch)
        finally:
            if used != cluster:
                self._terminate([cluster])
        return used

    def _live_of(self, run: str) -> list[str]:
        return [one.id for one in self.live() if one.name == self.name(run)]

    def _terminate(self, clusters: Sequence[str]) -> list[str]:
        for first in range(0, len(clusters), ENDED_AT_ONCE):
            some = clusters[first : first + ENDED_AT_ONCE]
            with told(self.region):
                self.client.terminate_job_flows(JobFlowIds=list(some))
        return list(clusters)

    def _claim(self, run: str) -> dict[str, Any] | None:
        try:
            return json.loads(self._claims.read(f"{run}.json"))
        except FileNotFoundError:
            return None

    def _swap(
        self, run: str, content: Mapping[str, Any], *, expected: Mapping[str, Any] | None
    ) -> None:
        old = None if expected is None else json.dumps(expected).encode()
        claims = self._claims
        claims.storage.swap(claims.at(f"{run}.json"), json.dumps(content).encode(), expected=old)

    @property
    def _claims(self) -> Folder:
        """Asked for with each use: clusters are ended whatever ails the bucket."""
        return folder_at(
            self._place,
            region=self.region,
            kms_key=self._kms_key,
            bucket_owner=self._bucket_owner,
        )
