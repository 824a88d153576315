"""Spark's ports: on one machine nobody else reaches them, and nobody talks to them without a key.

Spark's own defaults are the opposite: driver and block manager listen on the machine's address, and
whoever connects may fetch blocks, and have what they send deserialised by the JVM.
"""

from __future__ import annotations

from collections.abc import Mapping

from fruits_assets.storage.endpoints import is_loopback

LOOPBACK = "127.0.0.1"

SECRET = "spark.authenticate.secret"  # noqa: S105 - its name
"""The setting that holds the key of a standalone cluster; never on a command line."""

PROTECTED: Mapping[str, str] = {
    # A local session makes a key of its own, in memory: it is on no command line and in no file.
    "spark.authenticate": "true",
    "spark.network.crypto.enabled": "true",
    # The newer exchange of keys. The newer cipher, AES/GCM, loses all messages of a connection but
    # the first (SPARK-56227, in 4.0.2): Spark's default, AES/CTR, stays.
    "spark.network.crypto.authEngineVersion": "2",
    # Who cannot do that is refused, and not talked to by an older protocol.
    "spark.network.crypto.saslFallback": "false",
}
"""Spark's processes know each other by a key, and encrypt what they say."""

ON_LOOPBACK: Mapping[str, str] = {
    "spark.driver.host": LOOPBACK,
    "spark.driver.bindAddress": LOOPBACK,
}
"""The ports of a driver whose executors run on the same machine."""

ENVIRONMENT: Mapping[str, str] = {"SPARK_LOCAL_IP": LOOPBACK}
"""Where else a JVM listens, as for Spark's own web pages; Spark knows no setting for it."""


def closed(master: str) -> Mapping[str, str]:
    """The settings that close the ports of a session, as `spark.*` keys.

    Args:
        master: of the session. The executors of a cluster elsewhere must reach its driver: that
            one listens where Spark's own settings say, with a key.
    """
    return {**PROTECTED, **ON_LOOPBACK} if is_here(master) else PROTECTED


def is_here(master: str) -> bool:
    """Whether all executors of a master run on this machine."""
    if master.startswith("local"):
        return True
    several = master.removeprefix("spark://").split(",")
    return all(is_loopback(f"spark://{one}") for one in several)
