"""What tests ask of clusters: how fast they come up, and what goes wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fruits_assets_tests.yarn.cluster import MACHINE_MB

NODE_KEY = "AKIAEMULATEDNODE"
"""Access key of the machines of clusters, and of the emulator itself."""
OBSERVER_KEY = "AKIATESTSLOOKINGON"
"""Access key of tests that look at what happened: it works when that of the user has expired."""
SECRET_KEY = "opens-nothing"  # noqa: S105 - signatures are not looked at


@dataclass(frozen=True)
class Plan:
    """What becomes of a cluster.

    Attributes:
        boot_seconds: from RunJobFlow until its machines are there.
        fail: (code, message) with which it fails while STARTING.
        refuse: (error code, message) with which RunJobFlow itself is refused.
        time_scale: so many seconds of idleness pass in one second.
        log_delay: seconds from the end of a step to when its logs are in the bucket. Without any,
            they are there before the step's state says that it has ended.
        hang_steps: steps are stopped (SIGSTOP) as soon as they have started, and stay RUNNING.
        lose_messages: `s3://bucket/prefix` below which objects that are put are not stored,
            though the answer says so.
        core_label: that YARN's machines for core nodes have.
        machine_mb: memory that YARN has on each machine.
        extra_env: variables that steps get in addition.
    """

    boot_seconds: float = 0.1
    fail: tuple[str, str] | None = None
    refuse: tuple[str, str] | None = None
    time_scale: float = 1.0
    log_delay: float = 0.0
    hang_steps: bool = False
    lose_messages: str | None = None
    core_label: str = "CORE"
    machine_mb: int = MACHINE_MB
    extra_env: Mapping[str, str] = field(default_factory=dict)
