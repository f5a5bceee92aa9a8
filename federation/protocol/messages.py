"""What agents and servers say to one another, over NATS and HTTPS alike: msgpack maps, tagged by `kind`.

Positions, tokens and stamps make every message safe to lose, repeat, delay and reorder. Readers ignore fields they do
not know; fields are only added, with defaults (golden files under `tests/golden/messages`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from federation.protocol.gpus import Gpus

MESSAGE_BYTES_MAX: Final = 512 * 1024  # DESIGN §10; larger answers are split by content (`more`)
DESIRED_GROUPS_PER_ANSWER_MAX: Final = 2_000  # keeps an answer under MESSAGE_BYTES_MAX at ~200 B a group
ANSWERS_BYTES_MAX: Final = 32 * MESSAGE_BYTES_MAX  # 20 parts of 2,000 groups, and slack
LIVE_TOKENS_MAX: Final = 40_000  # desired groups per cluster, DESIGN §15


ROOMY_MAX: Final = 64  # gangs named in a report that could get more pods: the placer gives some to 16 a cycle
CLAIMS_MAX: Final = 100  # groups in one message: a server judges them in less than a tenth of a second
CLAIMS_BYTES_MAX: Final = 448 * 1024  # of their records: leaves room for the frame, and one of 384 KiB fits


COUNT_MAX: Final = 2**62  # of epochs and renewals: a server counts on from what an agent says, and must still fit
HOLDER_CHARS_MAX: Final = 256  # of each text that a renewal leaves in its lease

Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
HolderText = Annotated[str, msgspec.Meta(max_length=HOLDER_CHARS_MAX)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    schema_version: int = 1


# --- leases ----------------------------------------------------------------------------------------------------------


class LeaseBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One cluster's lease object: `leases/<lineage>/<cluster>`, changed only by compare-and-swap."""

    cluster: str
    state: str  # Active | Fenced | Recovering
    epoch: int
    floor: int = 0  # answers older than this position are not acted on
    ttl_s: float = 60.0
    renew_seq: int = 0  # the agent's count; the observer trusts only changes of it that it saw itself
    holder_uid: str = ""  # uid of namespace kube-system: which cluster this really is
    holder_boot: str = ""
    renewal_nonce: str = ""  # of the renewal applied last: a repeat on the other path is answered `renewed`
    nonce: str = ""  # of the writer of this body: resolves unknown outcomes
    schema_version: int = 1
    lineage: str = ""  # of a Recovering lease: reports made under it name it
    understands: int = 1  # what the agent that renewed last said


class Renewal(Message, frozen=True, kw_only=True, tag="Renewal"):
    """`ask_id` pairs the answer with the moment before sending, from which the agent's deadline counts."""

    ask_id: int
    cluster: str
    epoch: Count
    renew_seq: Count
    ttl_s: Annotated[float, msgspec.Meta(gt=0)]  # what is no positive number would make every wait meaningless
    holder_uid: HolderText
    holder_boot: HolderText
    nonce: HolderText
    understands: int = 1  # the newest format of a store whose novelties the agent knows: `store upgrade` asks for it


class RenewalAnswer(Message, frozen=True, kw_only=True, tag="RenewalAnswer"):
    """`result`: renewed | stale | fenced | unavailable | wrong-holder. `body` is the lease as it stands, if known."""

    ask_id: int
    result: str
    body: LeaseBody | None = None


# --- desired state ---------------------------------------------------------------------------------------------------


class DesiredAsk(Message, frozen=True, kw_only=True, tag="DesiredAsk"):
    """`since` 0 asks for all; else for what changed above `since` of the same lineage."""

    ask_id: int
    cluster: str
    since: int
    lineage: str = ""


class DesiredGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One home of this cluster as of the answer's position."""

    uid: str
    token: str
    intent: str  # run | stop
    policy: str  # effective policy of the token
    spec_digest: str
    bound: bool = False  # `Bound` has landed: the agent may hold it past its deadline
    stop_reason: str = ""
    grace_s: int = 30
    after: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()  # pods of each role, where they are not all
    resized_at: int = 0  # position at which they were set for this token; 0: they are those that it was placed with


class DesiredAnswer(Message, frozen=True, kw_only=True, tag="DesiredAnswer"):
    """All homes (`full`) or those changed in (`since`, `as_of`], and the tokens whose home ended there.

    `more`: the answer was cut; it is complete up to `as_of` and the agent asks again from there (never for `full` ones
    split over several answers, which carry `part` of `parts` with one `as_of`).
    """

    ask_id: int
    cluster: str
    lineage: str
    since: int
    as_of: int
    full: bool
    groups: tuple[DesiredGroup, ...] = ()
    ended: tuple[str, ...] = ()  # tokens
    specs: dict[str, bytes] = {}  # by uid, of groups that are new there and whose spec is small: they need no `SpecAsk`
    origins: dict[str, bytes] = {}  # of the groups in `specs`: see `SpecAnswer`
    part: int = 0
    parts: int = 1


class SpecAsk(Message, frozen=True, kw_only=True, tag="SpecAsk"):
    ask_id: int
    cluster: str
    uid: str


class SpecAnswer(Message, frozen=True, kw_only=True, tag="SpecAnswer"):
    """`spec` is zlib of the canonical JSON of the PodGroup; None when this replica does not know the uid (yet).

    `origin`: what a server needs beside it to make the group anew; the agent keeps it as it is.
    """

    ask_id: int
    uid: str
    spec: bytes | None = None
    origin: bytes = b""


# --- verdicts --------------------------------------------------------------------------------------------------------


class Verdict(Message, frozen=True, kw_only=True, tag="Verdict"):
    """`verdict`: Bound | Running | Sized | Refused | Released | Finished; the last three are final give-ups."""

    ask_id: int
    cluster: str
    uid: str
    token: str
    verdict: str
    pods: int = 0
    reasons: tuple[str, ...] = ()
    detail: str = ""
    succeeded: bool = False
    counts: tuple[int, ...] = ()  # of Sized: pods of each role
    resized_at: int = 0  # of Sized: the resize that this is the outcome of


class VerdictAnswer(Message, frozen=True, kw_only=True, tag="VerdictAnswer"):
    """`landed_at`: position where it landed or where the token had ended already; 0 when not taken (`why` says so)."""

    ask_id: int
    uid: str
    token: str
    verdict: str
    landed_at: int = 0
    why: str = ""
    resized_at: int = 0  # as in the verdict


# --- recovery --------------------------------------------------------------------------------------------------------


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """A group whose token this cluster holds, as it was sent to be bound; without a spec where none was kept."""

    uid: str
    spec: bytes = b""
    origin: bytes = b""


class Claims(Message, frozen=True, kw_only=True, tag="Claims"):
    """To a fleet that recovers: groups that were asked for. One without groups asks which those are. It goes where
    verdicts go, since they are for the leader as well, and every agent's credential allows it."""

    ask_id: int
    cluster: str
    groups: tuple[Claim, ...] = ()


class ClaimsAnswer(Message, frozen=True, kw_only=True, tag="ClaimsAnswer"):
    """Groups that the cluster reported, and that the fleet neither knows nor was told of: at most `CLAIMS_MAX`."""

    ask_id: int
    wanted: tuple[str, ...] = ()


# --- capacity --------------------------------------------------------------------------------------------------------


class Stamp(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Order of reports of one cluster: `boot` grows with every take-over of the agent's local lease, then `seq`."""

    boot: int
    seq: int


NODE_KINDS_MAX: Final = 64
"""Of one report: clusters have a few pools of equal nodes; what is beyond that is reported without labels."""


DEVICE_KINDS_MAX: Final = 64
"""Of parts of GPUs in one report: all profiles of all products are fewer. What is beyond that is not reported."""


class NodeKind(msgspec.Struct, frozen=True, array_like=True):
    """What many nodes have in common: labels by which pods choose nodes, and taints (key, value, effect)."""

    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[tuple[str, str, str], ...] = ()


class NodeKinds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Columns beside those of `NodeRows`, as long or absent. Absent: no node has labels or taints, or parts of GPUs."""

    kinds: tuple[NodeKind, ...] = ()
    at: tuple[int, ...] = ()  # the place of each node's kind in `kinds`
    tainted: tuple[bool, ...] = ()  # not `usable` for its taints alone: pods that tolerate them may stand there
    devices: tuple[str, ...] = ()  # kinds of parts of GPUs: MIG profiles, and `shared/4` for GPUs that four pods share
    devices_at: tuple[tuple[tuple[int, int, int], ...], ...] = ()  # of each node: place in `devices`, total, free
    unhealthy: tuple[int, ...] = ()  # GPUs of each node, beside those of `NodeRows.gpus`: shown, and counted by nobody


class NodeRows(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Node columns; all of equal length. Free amounts are after everything the agent has decided (`applied`)."""

    name: tuple[str, ...] = ()
    product: tuple[str, ...] = ()
    cpu_milli: tuple[int, ...] = ()
    memory_mib: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()  # physical healthy GPUs
    gpus_free: tuple[int, ...] = ()  # wholly free ones
    gpu_free_milli: tuple[tuple[int, ...], ...] = ()  # per GPU, where shares are in use
    cpu_milli_total: tuple[int, ...] = ()
    memory_mib_total: tuple[int, ...] = ()
    clique: tuple[str, ...] = ()
    rack: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    zone: tuple[str, ...] = ()
    usable: tuple[bool, ...] = ()  # ready, schedulable, no untolerated taint, no denied condition
    gone: tuple[str, ...] = ()  # names removed since the report before (deltas only)


class Report(Message, frozen=True, kw_only=True, tag="Report"):
    """`follows` None: full. Else a delta on the report with that stamp. Also the agent's heartbeat."""

    cluster: str
    lineage: str
    stamp: Stamp
    follows: Stamp | None = None
    applied: int
    age_s: float = 0.0
    epoch: int = 0  # lease epoch the agent knows
    live: bool = True  # under a live lease when this was made
    fence_strength: str = "none"
    tokens: tuple[str, ...] | None = None  # tokens with a container, sent while not live: what re-admission asks for
    rows: NodeRows = NodeRows()
    node_kinds: NodeKinds = NodeKinds()  # of the nodes of `rows`
    uids: tuple[str, ...] = ()  # the groups of `tokens`, in their order, where known; sent while the fleet recovers
    keeps_records: bool = False  # and answers for them with `Claims`
    recovers: str = ""  # lineage of the Recovering lease under which this was made: nothing may start since
    roomy: tuple[str, ...] = ()  # tokens of gangs that may not grow just anywhere, and have room where they stand
    part: int = 0  # of `parts` that follow one another: see `parts`
    parts: int = 1


class ReportWanted(Message, frozen=True, kw_only=True, tag="ReportWanted"):
    """Server to agent: send a full report (a delta's predecessor was not the one held)."""

    cluster: str


class Doorbell(Message, frozen=True, kw_only=True, tag="Doorbell"):
    """Only says: look again, desired state is at least at `position`."""

    cluster: str
    position: int


class JournalHint(Message, frozen=True, kw_only=True, tag="JournalHint"):
    """Server to server: there is an entry with this number."""

    seq: int


AgentAsk = Renewal | DesiredAsk | SpecAsk | Verdict | Claims
ServerAnswer = RenewalAnswer | DesiredAnswer | SpecAnswer | VerdictAnswer | ClaimsAnswer
ToAgent = Doorbell | ReportWanted
AnyMessage = AgentAsk | ServerAnswer | ToAgent | Report | JournalHint

# --- guards (inside one cluster) --------------------------------------------------------------------------------------


class BareGuardAsk(Message, frozen=True, kw_only=True, tag="GuardAsk"):
    """An ask as it always was: all that an answer takes."""

    node: str
    ask_id: int


class GuardAsk(Message, frozen=True, kw_only=True, tag="GuardAsk"):
    """`gpus`: those of the node as its guard last read them; None where it has read none, which says nothing."""

    node: str
    ask_id: int
    gpus: Gpus | None = None


class GuardAnswer(Message, frozen=True, kw_only=True, tag="GuardAnswer"):
    """`remaining_s` counts from the guard's clock before it asked; `hold`: tokens that may run past it. Without
    `starts` what runs goes on and nothing starts: the fleet recovers from a backup and does not know what runs."""

    ask_id: int
    remaining_s: float
    hold: tuple[str, ...] = ()
    starts: bool = True


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""A text that is none, and lists within lists without end, are no errors of the decoder's own."""


class UnreadableMessageError(ValueError):
    """A message could not be read: it is set aside and counted, never fatal (DESIGN §11.7)."""


def encode_message(message: AnyMessage) -> bytes:
    return _encoder.encode(message)


def decode_message(data: bytes) -> AnyMessage:
    """The message in `data`; UnreadableMessageError when it is too large or not one of ours."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise UnreadableMessageError(f"message of {len(data)} bytes, at most {MESSAGE_BYTES_MAX} are read")
    try:
        message: AnyMessage = _decoder.decode(data)
    except UNREADABLE as error:
        raise UnreadableMessageError(str(error)) from error
    return message


_answers_decoder = msgspec.msgpack.Decoder(tuple[ServerAnswer, ...])


def encode_answers(answers: Sequence[ServerAnswer]) -> bytes:
    """All parts of an answer in one body, for a path that has no limit of its own (HTTPS)."""
    return _encoder.encode(answers)


def decode_answers(data: bytes) -> tuple[ServerAnswer, ...]:
    """Inverse of `encode_answers`; UnreadableMessageError when it is too large or not that."""
    if len(data) > ANSWERS_BYTES_MAX:
        raise UnreadableMessageError(f"answer of {len(data)} bytes, at most {ANSWERS_BYTES_MAX} are read")
    try:
        answers: tuple[ServerAnswer, ...] = _answers_decoder.decode(data)
    except UNREADABLE as error:
        raise UnreadableMessageError(str(error)) from error
    return answers


def encode_lease(body: LeaseBody) -> bytes:
    return _encoder.encode(body)


_lease_decoder = msgspec.msgpack.Decoder(LeaseBody)


def decode_lease(data: bytes) -> LeaseBody:
    try:
        return _lease_decoder.decode(data)
    except UNREADABLE as error:
        raise UnreadableMessageError(f"lease: {error}") from error
