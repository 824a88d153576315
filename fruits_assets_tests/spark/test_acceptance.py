"""The command that tries an account: on an emulated one, whatever it asks of AWS."""

import numpy as np
import pytest

from fruits_assets import acceptance
from fruits_assets_tests.spark.conftest import User


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        ({"a": [1.0, 2.0], "b": [2.0, 0.0]}, 0.0),
        ({"a": [1.0, 2.0], "b": [2.0, 0.3]}, 0.1),
        ({"a": [1.0, 2.0]}, np.inf),
        ({"a": [1.0, 2.0], "c": [2.0, 0.0]}, np.inf),
        ({"a": [1.0], "b": [2.0]}, np.inf),
        ({}, np.inf),
    ],
)
def test_results_differ_by_rows_or_by_numbers(
    found: dict[str, list[float]], difference: float
) -> None:
    here, there = (
        {path: np.array(row) for path, row in rows.items()}
        for rows in ({"a": [1.0, 2.0], "b": [2.0, 0.0]}, found)
    )
    assert acceptance.difference(there, here) == pytest.approx(difference)


@pytest.mark.slow
def test_an_account_that_works_is_accepted_and_left_as_it_was(
    user: User, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**user.variables, **user.emr.environment}.items():
        monkeypatch.setenv(name, value)
    user.emr.plan(time_scale=5)  # each step is a process, and the cluster is idle while it starts
    before = _keys(user)
    code = acceptance.main()
    printed = capfd.readouterr()
    seen = dict(line.split(": ", 1) for line in printed.out.splitlines() if ": " in line)
    names = ("photos", "run", "features", "pca_features", "clusters", "price", "clean up")
    assert [*seen] == [f"OK   {name}" for name in names], printed.err[-3000:]
    assert code == 0
    assert "105 drawn" in seen["OK   photos"]
    (cluster,) = user.all_ended()
    assert cluster.id in seen["OK   clusters"]
    made = {key for key in _keys(user) - before if "acceptance-" in key}
    assert not made, "what the trial has put into the bucket is gone"


def _keys(user: User) -> set[str]:
    pages = user.emr.s3.client.get_paginator("list_object_versions").paginate(Bucket=user.bucket)
    return {one["Key"] for page in pages for one in page.get("Versions", [])}
