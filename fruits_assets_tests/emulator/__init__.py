"""An emulator of AWS for tests: all that moto knows, and an EMR that really runs what it is given.

`python -m fruits_assets_tests.emulator --port N --folder DIR` serves both on one port of loopback.
What EMR would do on machines of its own happens here in processes on this one: bootstrap actions
and steps run with nothing but what was shipped to them. Tests use `fruits_assets_tests.emr`.
"""
