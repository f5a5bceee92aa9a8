"""moto, one request at a time: `serial_moto.py HOST PORT`, in the servers' own environment.

It checks a condition and writes without a lock in between (moto/s3/responses.py), so two clients can both be told that
they created one object. That is rare, is no failure of Muster's, and breaks the promise that the tests ask a store for.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

_one_at_a_time = threading.Lock()
_moto = DomainDispatcherApplication(create_backend_app)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    with _one_at_a_time:
        return list(_moto(environ, start_response))


if __name__ == "__main__":
    run_simple(sys.argv[1], int(sys.argv[2]), application, threaded=True)
