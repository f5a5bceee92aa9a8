"""One ordered journal with snapshots over any compare-and-swap store: bytes, headers and versions.

What a record means lives in `federation.core`. No NATS, Kubernetes, HTTP or policy here.
"""
