"""A small language for what clusters wrote down: runs of containers, pod acts, nodes."""

from __future__ import annotations

from collections.abc import Iterable

from federation.cli.demo.checks import Acknowledged
from federation.cli.demo.evidence import SUCCEEDED, Evidence, Node, PodAct, Run
from federation.cli.demo.workload import Job

TOKEN = "l.9"


def job(name: str = "train", *, pods: int = 2, gpus: int = 8, products: tuple[str, ...] = ("H100-80",)) -> Job:
    return Job(name, "vc-ee9e8c", 0.0, 10, (gpus,) * pods, products)


def acknowledged(uid: str = "g", of: Job | None = None) -> list[Acknowledged]:
    return [Acknowledged(uid, of or job())]


def ran(
    pod: str,
    started_s: float,
    ended_s: float | None,
    *,
    cluster: str = "eu",
    node: str = "n-1",
    token: str = TOKEN,
    gpus: tuple[int, ...] = (),
    why: str = SUCCEEDED,
    group: str = "g",
) -> Run:
    uid = f"{cluster}/{pod}/{token}"
    return Run(cluster, node, pod, uid, group, token, started_s, ended_s, gpus, why if ended_s is not None else "")


def act(what: str, at_s: float, rank: int = 0, *, node: str = "n-1", uid: str = "", token: str = TOKEN) -> PodAct:
    name = f"train-{rank}-9-abc"
    return PodAct(at_s=at_s, act=what, name=name, uid=uid or f"eu/{rank}", node=node, group="g", token=token)


def evidence(runs: Iterable[Run] = (), acts: Iterable[PodAct] = (), *, gpus: int = 8) -> Evidence:
    """Clusters eu and us with nodes n-1 and n-2 of H100."""
    nodes = {name: Node(name=name, gpus=gpus, labels={"nvidia.com/gpu.product": "H100-80"}) for name in ("n-1", "n-2")}
    ordered = sorted(runs, key=lambda run: (run.started_s, run.cluster, run.uid))
    return Evidence(tuple(ordered), {"eu": list(acts), "us": []}, {"eu": nodes, "us": nodes})
