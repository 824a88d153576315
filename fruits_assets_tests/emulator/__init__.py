"""An emulator of AWS for tests: all that moto knows, and an EMR that really runs what it is given.

`python -m fruits_assets_tests.emulator --port N --folder DIR` serves both on one port of loopback.
Steps run on a genuine YARN whose daemons are processes of this machine, with nothing but what was
shipped to them. Tests use `fruits_assets_tests.emr`.
"""
