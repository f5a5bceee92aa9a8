"""Which pods `muster logs` reads, by what their API server says of them."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

from federation.cli import podlogs


@contextlib.contextmanager
def answering(body: Any) -> Iterator[str]:
    data = json.dumps(body).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def pod(name: str, rank: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"muster.io/rank": rank}}}


def test_a_rank_that_is_no_number_is_the_first_one() -> None:
    """Anybody who may write pods may write the label; it was a traceback."""
    pods = [pod("a", "1"), pod("b", "last"), pod("c", "٣"), pod("d", "9" * 5_000)]
    with answering({"items": pods}) as url:
        assert podlogs.pods_of(url, "default", "l1.5") == [(0, "b"), (0, "c"), (0, "d"), (1, "a")]
