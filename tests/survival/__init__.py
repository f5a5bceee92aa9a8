"""Real processes under real failures: a fleet is submitted to, parts of it are killed or cut, and then the books are
compared with what the kubelets logged. Small in `make test`, full size in `make exam` (`python -m tests.survival`)."""
