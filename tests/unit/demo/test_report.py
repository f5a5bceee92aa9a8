"""What people read at the end of the demo, and what they see."""

from __future__ import annotations

from xml.etree import ElementTree

from rich.console import Console

from federation.cli.demo import report
from federation.cli.demo.checks import Broken, Promise
from federation.cli.demo.facts import CutFacts, Facts
from federation.cli.demo.live import picture, told
from federation.cli.demo.plain import PlainScreen
from federation.cli.demo.progress import Counts, Latency, News, Scene
from federation.cli.demo.timeline import Mark, Picture, draw
from muster.results import (
    ClusterReason,
    ClusterStatus,
    ClusterView,
    Decision,
    Explanation,
    GpuCount,
    NamedMetadata,
    QueueSpec,
    QueueStatus,
    QueueView,
)
from tests.unit.demo.logs import ran

CUT = CutFacts("eu", 52, 7.2, 4.2, 12.6, 33, 6.8, 2.4)
FACTS = Facts(
    clusters=3,
    nodes=300,
    gpus=2_080,
    jobs=400,
    gpus_asked=5_275,
    pods=772,
    acknowledged=400,
    answer_p99_ms=36.0,
    placements=532,
    decisions_per_s_max=17.0,
    bound_p50_s=0.9,
    bound_p99_s=12.1,
    pending_max=43,
    runs=964,
    acts=3_856,
    play_s=80.0,
    cut=CUT,
    drained="us",
    drained_groups=48,
    drained_s=9.0,
    finished=True,
)


def test_the_summary_says_what_happened() -> None:
    assert report.summary(FACTS).splitlines() == [
        "  fleet                3 clusters, 300 nodes, 2,080 GPUs",
        "  work                 400 jobs of the Philly trace: 772 pods, 5,275 GPUs; 400 acknowledged, p99 36 ms",
        "  placed               532 placements, up to 17/s; submitted to bound p50 0.9 s, p99 12.1 s",
        "  waiting              up to 43 groups at once",
        "  eu cut               52 groups struck; fenced after 7.2 s, free to start elsewhere 4.2 s later",
        "                       33 ran elsewhere, the first 12.6 s after the cut; 6.8 s or more from old to new",
        "  eu back              in use 2.4 s after its network was back",
        "  us drained           48 groups handed over in 9.0 s",
    ]


def test_each_promise_gets_its_verdict() -> None:
    broken = [Broken(Promise.ONE_HOME, "l.1", "train", "it ran twice")]
    lines = report.verdicts({Promise.ONE_HOME: broken, Promise.NO_ORPHANS: []}).splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [("S1", "BROKEN"), ("L4", "kept")]


def test_a_broken_promise_is_told_with_its_group_and_history() -> None:
    broken = Broken(Promise.ONE_HOME, "l.1", "train", "it ran twice", at_s=130)
    history = [Decision(position=7, kind="Placed", cluster="eu", summary="placed on eu")]
    runs = [ran("train-0", 101, 112.5), ran("train-0", 110, None, cluster="us")]
    assert report.accusation(broken, history, runs, began_s=100).splitlines() == [
        "S1 BROKEN: podgroup/train (uid l.1): it ran twice, 30.0 s into the demo",
        "  decisions about it:",
        "             7  Placed         eu         placed on eu",
        "  containers of it, by the kubelets' run logs:",
        "             1.0 s to 12.5 s  eu         n-1 train-0 Succeeded",
        "     10.0 s to still running  us         n-1 train-0",
    ]


def test_the_timeline_is_a_picture_of_use_waiting_and_moves() -> None:
    text = draw(
        Picture(
            title="400 jobs <of> a trace",
            began_s=100,
            length_s=60,
            gpus={"eu": 16, "us": 8},
            runs=[ran("a", 101, 120, gpus=(0, 1)), ran("a", 130, None, cluster="us", token="l.11", gpus=(0, 1))],
            pending=[(0, 0), (10, 5), (60, 0)],
            marks=[Mark(20, "eu cut", grave=True)],
            struck=["g"],
            names={"g": "train"},
        )
    )
    root = ElementTree.fromstring(text)  # well-formed, whatever names hold
    space = "{http://www.w3.org/2000/svg}"
    words = [node.text for node in root.iter(f"{space}text")]
    assert "400 jobs <of> a trace" in words
    assert "eu cut" in words
    assert len(list(root.iter(f"{space}polygon"))) == 2  # one area per cluster
    assert [node.text for node in root.iter(f"{space}title")] == ["train: a in eu", "train: a in us"]


SCENE = Scene(
    at_s=65,
    act="its gangs start elsewhere",
    expected=400,
    clusters=[
        ClusterView(
            metadata=NamedMetadata(name="eu", labels={"region": "eu-north"}),
            status=ClusterStatus(
                state="Fenced", groups=3, gpus={"H100-80": GpuCount(total=720, free=208, unhealthy=8)}
            ),
        )
    ],
    queues=[
        QueueView(
            metadata=NamedMetadata(name="vc-ee9e8c"),
            spec=QueueSpec(weight=38, gpu_quota={"*": 801}),
            status=QueueStatus(pending=15, running=38, gpus_used={"*": 599}),
        )
    ],
    counts=Counts(pending=21, placed=4, bound=14, running=60, done=301),
    decisions_per_s=4.2,
    latency=Latency(0.9, 12.1, 380),
    head=Explanation(
        name="philly-1",
        phase="Pending",
        summary="InsufficientGpus: needs 128 GPUs, best is 96",
        change="free 32 H100-80 GPUs in eu",
        clusters=[ClusterReason(cluster="eu", text="ClusterFenced")],
    ),
)


def test_a_terminal_shows_clusters_queues_counts_and_why_the_head_waits() -> None:
    console = Console(width=150, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(picture(SCENE, "muster demo"))
    shown = capture.get()
    assert "1:05" in shown
    assert " 504/720" in shown
    assert " 599/801" in shown
    assert "21 waiting   18 binding or bound   60 running   301 done of 400" in shown
    assert "p50 0.9 s  p99 12.1 s" in shown
    assert "head of the queue: philly-1" in shown
    assert "needs 128 GPUs, best is 96" in shown
    assert "would start with  free 32 H100-80 GPUs in eu" in shown


def test_news_stand_above_the_picture_with_their_time() -> None:
    assert told(News(61.0, "eu is cut", grave=True)).plain == " 1:01  eu is cut"


def test_a_pipe_gets_the_news_and_where_things_stand_every_few_seconds() -> None:
    lines: list[str] = []
    screen = PlainScreen(lines.append)
    screen.show(SCENE)
    screen.show(SCENE)
    screen.note(News(66.0, "eu gets its network back"))
    stand, news = lines
    assert news == " 1:06  - eu gets its network back"
    assert stand == (
        " 1:05    pending 21 bound 18 running 60 done 301/400  eu Fenced 504/720 (8 unhealthy)  4 decisions/s"
        "  bound after p50 0.9 s p99 12.1 s"
    )
