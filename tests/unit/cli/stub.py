"""A small real HTTP server with fixed answers in the API's shapes, and a way to run the command against it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOW_MS = 1_800_000_000_000
MINUTE_MS = 60_000

Answer = tuple[int, dict[str, Any]]


def group(name: str, position: int, **status: Any) -> dict[str, Any]:
    """A PodGroup as the server shows it."""
    return {
        "apiVersion": "muster.io/v1",
        "kind": "PodGroup",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"l.{position}",
            "labels": {"team": "vision"},
            "resourceVersion": str(position),
            "submitted_ms": NOW_MS - 5 * MINUTE_MS,
            "actor": "operator",
        },
        "spec": {
            "queue": "research",
            "priority": 5,
            "pods": 4,
            "min_count": 4,
            "gpus": 32,
            "grace_s": 30,
            "disconnect_policy": "StopAndMove",
            "disruption_mode": "all",
            "topology": {"required": "", "preferred": "clique"},
            "roles": [
                {
                    "name": "worker",
                    "count": 4,
                    "min_count": 4,
                    "gpus": 8,
                    "cpu_milli": 8000,
                    "memory_mib": 65536,
                    "products": ["A100-80"],
                }
            ],
            "workload": "pods",
        },
        "status": {
            "phase": "Pending",
            "cluster": "",
            "token": "",
            "effective_policy": "",
            "pods_bound": 0,
            "attempts": 0,
            "intent": "run",
            "last_cluster": "",
            "reasons": [],
            "conditions": [{"type": "Placed", "status": "False", "reason": "Pending"}],
            **status,
        },
    }


RUNNING = group(
    "train",
    8192,
    phase="Running",
    cluster="c-1",
    token="l.16384",
    effective_policy="StopAndMove",
    pods_bound=4,
    attempts=1,
    conditions=[{"type": "Placed", "status": "True", "reason": "Running"}],
)
WAITING = group("tune", 8193, reasons=["InsufficientGpus", "ClusterCordoned"])

CLUSTERS = [
    {
        "metadata": {"name": "c-1", "labels": {"region": "eu-1"}},
        "spec": {"lease_class": "fast", "cordoned": False, "drain": False, "accept_unguarded": False},
        "status": {
            "state": "Active",
            "lease_epoch": 1,
            "silence_s": 0.2,
            "fence_strength": "guard",
            "nodes": 8,
            "gpus": {"A100-80": {"total": 64, "free": 32, "unhealthy": 0}},
            "groups": 1,
            "report_age_s": 0.4,
        },
    },
    {
        "metadata": {"name": "c-2", "labels": {}},
        "spec": {"lease_class": "fast", "cordoned": True, "drain": True, "cordon_reason": "cooling"},
        "status": {"state": "Joining", "nodes": 0, "gpus": {}, "groups": 0, "report_age_s": None},
    },
]

QUEUES = [
    {
        "metadata": {"name": "research"},
        "spec": {"weight": 2, "gpu_quota": {"*": 64}, "disconnect_policy": ""},
        "status": {"pending": 1, "running": 1, "gpus_used": {"any": 8, "*": 40, "A100-80": 32}},
    }
]


def decision(position: int, kind: str, summary: str, **more: Any) -> dict[str, Any]:
    base = {
        "position": position,
        "at_ms": NOW_MS - MINUTE_MS,
        "kind": kind,
        "actor": "operator",
        "cause": "id-1",
        "uid": "l.8192",
        "name": "train",
        "cluster": "",
        "token": "",
        "summary": summary,
        "detail": {},
    }
    return {**base, **more}


HISTORY = [
    decision(8192, "Submitted", "submitted: 4 pods to queue research, priority 5"),
    decision(16384, "Placed", "placed on c-1", actor="s-1", cluster="c-1", token="l.16384"),
]


def event(item: dict[str, Any]) -> str:
    """A decision as the watch stream carries it."""
    return f"id: {item['position']}\nevent: {item['kind']}\ndata: {json.dumps(item)}\n\n"


EXPLANATION = {
    "uid": "l.8193",
    "phase": "Pending",
    "summary": "needs 32 GPUs in one cluster, the best has 16",
    "clusters": [
        {"cluster": "c-1", "reason": "InsufficientGpus", "needs": 32, "best": 16, "unit": "GPUs", "detail": "A100-80"},
        {"cluster": "c-2", "reason": "ClusterCordoned", "needs": 0, "best": 0, "unit": "", "detail": "cooling"},
    ],
    "queue": {"name": "research", "ahead": 2, "ahead_in_queue": 1},
    "quota": [{"product": "*", "limit": 64, "used": 40, "needs": 32}],
    "would_fit": "",
    "change": "free 16 A100-80 in c-1",
}


def listing(kind: str, items: list[dict[str, Any]]) -> Answer:
    return 200, {"kind": kind, "metadata": {"resourceVersion": "16384", "continue": ""}, "items": items}


def problem(status: int, reason: str, detail: str, name: str, remedy: str) -> Answer:
    return status, {"status": status, "reason": reason, "detail": detail, "field": name, "remedy": remedy}


NO_GROUP = problem(
    404, "UnknownGroup", "no PodGroup 'gone' in namespace 'default'", "name", "see `muster get podgroups -A`"
)


def answers() -> dict[tuple[str, str], Answer]:
    """What is answered to whom, fresh for each test to change."""
    landed = (200, {"position": 24576})
    return {
        ("POST", "/v1/podgroups"): (
            201,
            {"uid": "l.8194", "position": 8194, "name": "hello", "namespace": "default"},
        ),
        ("POST", "/v1/podgroups:bulk"): (
            200,
            {
                "items": [
                    {"status": 201, "uid": "l.8194", "position": 8194, "name": "hello", "namespace": "default"},
                    {"status": 409, "reason": "NameTaken", "detail": "name: default/hello is l.8194", "field": "name"}
                    | {"remedy": "choose another name"},
                ]
            },
        ),
        ("GET", "/v1/podgroups"): listing("PodGroupList", [RUNNING, WAITING]),
        ("GET", "/v1/podgroups/train"): (200, RUNNING),
        ("GET", "/v1/podgroups/l.8192/history"): listing("DecisionList", HISTORY),
        ("GET", "/v1/podgroups/tune"): (200, WAITING),
        ("GET", "/v1/podgroups/l.8193"): (200, WAITING),
        ("GET", "/v1/podgroups/l.8193/explain"): (200, EXPLANATION),
        ("GET", "/v1/podgroups/tune/explain"): (200, EXPLANATION),
        ("GET", "/v1/podgroups/gone"): NO_GROUP,
        ("POST", "/v1/podgroups/train/cancel"): landed,
        ("POST", "/v1/podgroups/train/suspend"): landed,
        ("POST", "/v1/podgroups/train/resume"): landed,
        ("POST", "/v1/podgroups/train/resize"): landed,
        ("POST", "/v1/podgroups/gone/cancel"): NO_GROUP,
        ("GET", "/v1/clusters"): listing("ClusterList", CLUSTERS),
        ("GET", "/v1/clusters/c-1"): (200, CLUSTERS[0]),
        ("PUT", "/v1/clusters/c-3"): landed,
        ("POST", "/v1/clusters/c-1/cordon"): landed,
        ("POST", "/v1/clusters/c-1/uncordon"): landed,
        ("POST", "/v1/clusters/c-1/remove"): landed,
        ("POST", "/v1/clusters/c-1/drain"): landed,
        ("POST", "/v1/clusters/c-1/confirm-dead"): landed,
        ("GET", "/v1/queues"): listing("QueueList", QUEUES),
        ("GET", "/v1/queues/research"): (200, QUEUES[0]),
        ("PUT", "/v1/queues/research"): landed,
        ("GET", "/v1/decisions"): listing("DecisionList", []),
    }


@dataclass
class Asked:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any


@dataclass
class Stub:
    url: str
    answers: dict[tuple[str, str], Answer]  # by method and path, which may have a query
    asked: list[Asked] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None  # may hold it
    events: list[str] = field(default_factory=list)  # what each watch gets before it is cut; after the last: a 404

    def bodies(self, method: str) -> list[Any]:
        return [one.body for one in self.asked if one.method == method]


@contextmanager
def serving() -> Iterator[Stub]:
    stub = Stub("", answers())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {key.lower(): value for key, value in self.headers.items()}
            stub.asked.append(Asked(self.command, path, query, headers, body))
            stub.before_answer()
            if path == "/v1/watch" and stub.events:
                self.reply(200, "text/event-stream", stub.events.pop(0).encode())
                return
            unknown: Answer = (404, {"reason": "NotFound", "detail": self.path})
            found = stub.answers.get((self.command, self.path)) or stub.answers.get((self.command, path), unknown)
            status, content = found
            self.reply(status, "application/json", json.dumps(content).encode())

        def reply(self, status: int, media_type: str, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
