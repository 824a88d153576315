"""Fixtures that the tests of `storage` share."""

from fruits_assets_tests.users import unprivileged_fixture  # noqa: F401
