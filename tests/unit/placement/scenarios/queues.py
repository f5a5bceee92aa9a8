"""Who is served first, and what a queue may use."""

from __future__ import annotations

from placement.model import Reason
from tests.builders import gang
from tests.unit.placement.scenarios.language import KAI_ALLOCATE, KAI_QUEUES, Placed, Waits, gpus, scenario

INFERENCE, BUILD, TRAIN = 125, 100, 50

QUEUES = (
    scenario(
        "the gang of higher priority takes the rest of the node, older ones wait",
        f"{KAI_ALLOCATE} '1 job running on node0, 3 pending jobs - only build job should be allocated'",
        gpus(node0=(2, 4)),
        (
            gang("job0", gpus=4, priority=TRAIN),
            gang("job1", gpus=2, priority=TRAIN),
            gang("job2", gpus=2, priority=BUILD),
        ),
        {
            "job0": Waits(Reason.INSUFFICIENT_GPUS, 4, 0),
            "job1": Waits(Reason.INSUFFICIENT_GPUS, 2, 0),
            "job2": Placed({"node0": 1}),
        },
    ),
    scenario(
        "inference is served before builds",
        f"{KAI_ALLOCATE} 'Allocate inference before build'",
        gpus(node0=1),
        (
            gang("job0", gpus=1, priority=BUILD),
            gang("job1", gpus=1, priority=INFERENCE),
            gang("job2", gpus=1, priority=BUILD),
        ),
        {
            "job0": Waits(Reason.INSUFFICIENT_GPUS),
            "job1": Placed({"node0": 1}),
            "job2": Waits(Reason.INSUFFICIENT_GPUS),
        },
    ),
    scenario(
        "inference is served before training",
        f"{KAI_ALLOCATE} 'Allocate inference before train'",
        gpus(node0=1),
        (
            gang("job0", gpus=1, priority=TRAIN),
            gang("job1", gpus=1, priority=INFERENCE),
            gang("job2", gpus=1, priority=TRAIN),
        ),
        {
            "job0": Waits(Reason.INSUFFICIENT_GPUS),
            "job1": Placed({"node0": 1}),
            "job2": Waits(Reason.INSUFFICIENT_GPUS),
        },
    ),
    scenario(
        "of two queues with equal shares the older gang is served",
        f"{KAI_QUEUES} 'allocate according to creation time when share is equal'",
        gpus(node0=1),
        (gang("job0", gpus=1, queue="queue0"), gang("job1", gpus=1, queue="queue1")),
        {"job0": Placed({"node0": 1}), "job1": Waits(Reason.INSUFFICIENT_GPUS)},
        quotas={"queue0": 1, "queue1": 1},
    ),
    scenario(
        "a queue does not pass what it may use at most, though GPUs are free",
        f"{KAI_QUEUES} 'allocate job but does not allow to project to go over allowance'",
        gpus(node0=4),
        (gang("job0", gpus=2, queue="queue0"), gang("job1", gpus=2, queue="queue0")),
        {"job0": Placed({"node0": 1}), "job1": Waits(Reason.QUOTA_EXHAUSTED, 2, 0)},
        quotas={"queue0": 2},
    ),
    scenario(
        "a gang larger than what its queue may use waits in an empty cluster",
        f"{KAI_QUEUES} 'don't allocate over quota build jobs'",
        gpus(node0=4),
        gang("job0", gpus=2, priority=BUILD, queue="queue0"),
        Waits(Reason.QUOTA_EXHAUSTED, 2, 1),
        quotas={"queue0": 1, "queue1": 1},
    ),
    scenario(
        "a queue that may use nothing gets nothing of a free node",
        f"{KAI_ALLOCATE} 'Allocate inference over quota'",
        gpus(node0=1),
        gang("job0", gpus=1, priority=INFERENCE, queue="queue0"),
        Waits(Reason.QUOTA_EXHAUSTED, 1, 0),
        quotas={"queue0": 0, "queue1": 1},
    ),
    scenario(
        "what is placed in a cycle counts for the next gang of the queue in the same cycle",
        f"{KAI_QUEUES} '6 pending train jobs - allocate the 1st 2 of each queue (verify the share is being updated "
        "during the allocation)'",
        gpus(node0=4),
        tuple(gang(f"job{number}", gpus=1, queue=f"queue{number // 3}") for number in range(6)),
        {
            **{f"job{number}": Placed({"node0": 1}) for number in (0, 1, 3, 4)},
            **{f"job{number}": Waits(Reason.QUOTA_EXHAUSTED, 1, 0) for number in (2, 5)},
        },
        quotas={"queue0": 2, "queue1": 2},
    ),
)
