"""Python runs this at its start: the clock of libfaketime is for the Dagster process only.

The JVM does not start with libfaketime 0.9.10, and `time.sleep` of Python 3.11 fails with it
(`clock_nanosleep` until a time on the monotonic clock answers EINVAL).
"""

import os
import select
import time

if os.environ.pop("LD_PRELOAD", ""):
    time.sleep = lambda seconds: select.select([], [], [], float(seconds)) and None
