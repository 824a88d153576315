"""Settings of clusters: what they use of an AWS account, and how much they may take."""

import re
from typing import Literal

import dagster as dg
from pydantic import Field, field_validator

from fruits_assets.spark.sizing import Limits

Architecture = Literal["arm64", "x86_64"]
MANAGED = "for-use-with-amazon-emr-managed-policies"
"""AmazonEMRServicePolicy_v2 touches nothing without this tag."""
STACK = "fruits-stack"
"""The orchestrator's policy allows nothing with clusters that do not carry this tag."""
WEEK_MINUTES = 7 * 24 * 60
"""What EMR allows a cluster to be idle, at most."""
NO_ESCAPES = re.compile(r"(?:s3://)?[\w/~.!'()*-]*", re.ASCII)
"""URIs of objects that are spelled as their keys are, without `%20`."""
Release = Literal["emr-spark-8.0.0", "emr-7.13.0"]


class EmrPlaces(dg.Config):
    """Settings that clusters and EMR Serverless share."""

    logs: str = Field(description="s3:// URI that clusters write their logs to.")
    code: str = Field(description="s3:// URI that clusters find what they run at.")
    pipes: str = Field(description="s3:// URI of the messages between steps and Dagster.")
    architecture: Architecture = Field(
        default="arm64",
        description="Processors of the machines: arm64 (Graviton), or x86_64 (Intel and AMD).",
    )

    @field_validator("code")
    @classmethod
    def _is_a_uri(cls, code: str) -> str:
        if not NO_ESCAPES.fullmatch(code):
            raise ValueError(
                f"{code!r} has characters that Spark cannot find files by: use letters, digits and "
                "/ - _ . ~ ! ' ( ) * only"
            )
        return code


class ServerlessAccount(EmrPlaces):
    """Where jobs of EMR Serverless run and what they may do: outputs of the stack (docs/emr.md)."""

    serverless_application: str = Field(
        description="Id of the application of EMR Serverless that jobs are submitted to."
    )
    serverless_role: str = Field(
        description="ARN of the role that jobs of EMR Serverless read and write with."
    )


class EmrAccount(EmrPlaces):
    """Where clusters start and what they may do: the outputs of the stack (docs/emr.md)."""

    service_role: str = Field(description="ARN of the role in which EMR starts machines.")
    instance_profile: str = Field(description="ARN of the profile that machines run in.")
    security_configuration: str = Field(description="Name of EMR's security configuration.")
    tag: str = Field(description="Value of the tag `fruits-stack`, which clusters carry.")
    subnets: str = Field(description="Private subnets, comma-separated: EMR picks one.")
    primary_security_group: str = Field(description="Security group of the primary node.")
    worker_security_group: str = Field(description="Security group of all other nodes.")
    service_security_group: str = Field(description="Security group of EMR's own access.")
    release: Release = Field(default="emr-spark-8.0.0", description="Release of EMR.")
    cluster: str | None = Field(
        default=None,
        description="Id of a running cluster to use instead of one per run; never terminated.",
    )


class EmrLimits(dg.Config):
    """Limits of a run: how large, how dear and how long it may become."""

    target_minutes: float = Field(
        default=20.0,
        gt=0,
        le=WEEK_MINUTES,
        description="Minutes that a cluster is sized to compute for, about.",
    )
    max_cores: int = Field(
        default=64, ge=4, description="vCPUs of a cluster for executors, at most."
    )
    executor_cores: int = Field(
        default=4,
        ge=1,
        le=4,
        description="Photos that a machine of 4 cores works on at once. Fewer have more memory "
        "each: 2 GB with 4, 4 GB with 2, 8 GB with 1.",
    )

    @field_validator("executor_cores")
    @classmethod
    def _divides_a_machine(cls, cores: int) -> int:
        if cores == 3:  # of the 4 cores of an xlarge machine, one would do nothing
            raise ValueError("must be 1, 2 or 4, for a machine has 4")
        return cores

    max_cost_eur: float | None = Field(
        default=None, gt=0, description="EUR without tax. A run that may cost more is refused."
    )
    idle_minutes: float = Field(
        default=5.0,
        ge=1,
        le=WEEK_MINUTES,
        description="Minutes after which a cluster that nobody uses ends itself.",
    )
    start_minutes: float = Field(
        default=30.0,
        gt=0,
        le=WEEK_MINUTES,
        description="Minutes after which a step that has not begun is cancelled.",
    )
    begin_minutes: float = Field(
        default=10.0,
        gt=0,
        le=WEEK_MINUTES,
        description="Minutes after which a step is cancelled whose driver is not at work, or "
        "has no executor.",
    )
    step_minutes: float = Field(
        default=120.0,
        gt=0,
        le=WEEK_MINUTES,
        description="Minutes after which a step that has not ended is cancelled.",
    )
    poll_seconds: float = Field(
        default=10.0, gt=0, le=600, description="Seconds between two looks at a step."
    )
    prices: str | None = Field(
        default=None,
        description="JSON file with prices that replace those of fruits_assets/spark/prices.json.",
    )

    def of_plans(self) -> Limits:
        """Those that the size and the price of a run are held to."""
        return Limits(
            target_minutes=self.target_minutes,
            max_cores=self.max_cores,
            max_cost_eur=self.max_cost_eur,
            step_minutes=self.step_minutes,
            executor_cores=self.executor_cores,
        )


class SparkMaster(dg.Config):
    """A cluster, and how much of it a job may take."""

    master: str = Field(
        pattern=r"^(yarn$|k8s://|spark://)",
        description="Spark master: yarn, k8s://https://host:port, or spark://host:port.",
    )
    pipes: str = Field(description="s3:// URI of the messages between jobs and Dagster.")
    home: str | None = Field(
        default=None,
        description="Folder of the Spark distribution whose spark-submit is used; PySpark's own "
        "without. Its version must be that of the cluster.",
    )
    python: str = Field(
        default="python3.11",
        description="Python 3.11 on the cluster's machines: a name on their PATH, or a path.",
    )
    architecture: Architecture = Field(
        default="x86_64", description="Processors of the cluster's machines."
    )
    executors: int = Field(default=2, ge=1, description="Number of executors of a job.")
    executor_cores: int = Field(default=4, ge=1, description="Cores of an executor.")
    executor_memory: str = Field(default="2g", description="Heap of an executor.")
    worker_memory: str = Field(
        default="8g",
        description="Memory of an executor's Python workers, beside its heap: 2 GB a core.",
    )
    begin_minutes: float = Field(
        default=10.0,
        gt=0,
        description="Minutes after which a job is ended that has no driver, or whose driver has "
        "no executor.",
    )
    job_minutes: float = Field(
        default=120.0, gt=0, description="Minutes after which a job is ended."
    )
