"""The tests: a package, so that lanes run as `python -m tests.world` and import rules load by name."""
