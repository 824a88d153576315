"""Fixtures that the tests of `sources` share."""

from fruits_assets_tests.users import unprivileged_fixture  # noqa: F401
