"""Records and messages of released versions must load for ever, and what is written today must not change by accident.

A file is added with each new kind or version, never changed. `SAMPLES` says what each file means.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from federation.core import records
from federation.core.records import AnyRecord, UnreadableRecordError, decode_record, encode_record
from federation.protocol import messages
from federation.protocol.messages import (
    AnyMessage,
    LeaseBody,
    Stamp,
    UnreadableMessageError,
    decode_lease,
    decode_message,
    encode_lease,
    encode_message,
)
from placement.model import Position

GOLDEN = Path(__file__).parents[2] / "golden"
SOMEWHERE = Position(8_193)
BY = {"actor": "sara", "at_ms": 1_700_000_000_123, "cause": "r-1"}
UID = "1700000000000-abc.16384"
TOKEN = "1700000000000-abc.24577"
OF = {"uid": UID, "token": TOKEN, "cluster": "eu-1"}

SUBMITTED = records.Submitted(
    **BY,  # type: ignore[arg-type]
    name="train",
    namespace="vision",
    queue="research",
    priority=7,
    request_id="r-1",
    body_digest="d" * 32,
    roles=(records.RoleShape("worker", 8, 6, 4, 0, "", 2_000, 4_096, ("A100", "H100")),),
    min_count=6,
    level_required="clique",
    level_preferred="rack",
    cluster_labels=(("region", ("eu", "us")),),
    cluster_labels_not=(("cloud", ("x",)),),
    lease_classes=("fast",),
    disruption_mode="all",
    disconnect_policy="StopAndMove",
    grace_s=45,
    suspend=True,
    labels={"team": "vision"},
    workload="job",
    spec=b"\x78\x9c\x01",
)

RECORDS: dict[str, AnyRecord] = {
    "Submitted": SUBMITTED,
    "SubmittedChild": records.SubmittedChild(
        **(msgspec.structs.asdict(SUBMITTED) | {"name": "web-2", "suspend": False, "workload": "pods"}),
        child=records.ChildOf("web", 2, 3, 9, 2, "room"),
        request_digest="e" * 32,
    ),
    "Placed": records.Placed(
        **BY,  # type: ignore[arg-type]
        uid=UID,
        cluster="eu-1",
        effective_policy="HoldInPlace",
        candidates=(records.Candidate("eu-1", 93, (("used_after", 93),)), records.Candidate("us-1", 2)),
        reasons=(("InsufficientGpus", 3),),
        stamp=("eu-1", 2, 40),
        budget=20_000,
        policy_version=1,
        after=(TOKEN,),
    ),
    "Bound": records.Bound(**BY, **OF, pods=8),  # type: ignore[arg-type]
    "Running": records.Running(**BY, **OF, pods=8),  # type: ignore[arg-type]
    "GaveUp": records.GaveUp(
        **BY,  # type: ignore[arg-type]
        **OF,  # type: ignore[arg-type]
        verdict="Finished",
        reasons=("MemberLost",),
        detail="node n-1 is gone",
        succeeded=True,
        late=True,
    ),
    "IntentSet": records.IntentSet(**BY, uid=UID, intent="cancel", reason="wrong data"),  # type: ignore[arg-type]
    "Quarantined": records.Quarantined(
        **BY,  # type: ignore[arg-type]
        uid=UID,
        losses=6,
        clusters=("eu-1", "us-1"),
        reasons=("KubeletRejected",),
    ),
    "Resized": records.Resized(
        **BY,  # type: ignore[arg-type]
        **OF,  # type: ignore[arg-type]
        counts=(1, 4),
        at_most=(1, 6),
        role="worker",
        count=4,
        stamp=("eu-1", 2, 40),
    ),
    "Sized": records.Sized(
        **BY,  # type: ignore[arg-type]
        **OF,  # type: ignore[arg-type]
        counts=(1, 2),
        resized_at=32_768,
        reasons=("InsufficientGpus",),
        detail="2 short",
    ),
    "QueueApplied": records.QueueApplied(
        **BY,  # type: ignore[arg-type]
        name="research",
        weight=3,
        gpu_quota={"*": 64, "A100": 32},
        disconnect_policy="HoldInPlace",
    ),
    "ClusterJoined": records.ClusterJoined(
        **BY,  # type: ignore[arg-type]
        cluster="eu-1",
        lease_class="careful",
        labels={"region": "eu"},
        accept_unguarded=True,
    ),
    "ClusterCordoned": records.ClusterCordoned(
        **BY,  # type: ignore[arg-type]
        cluster="eu-1",
        cordoned=True,
        drain=True,
        reason="kernel",
    ),
    "ClusterFenced": records.ClusterFenced(**BY, cluster="eu-1", epoch=4),  # type: ignore[arg-type]
    "FenceDone": records.FenceDone(**BY, cluster="eu-1", epoch=4, grace_s=45),  # type: ignore[arg-type]
    "ClusterAdmitted": records.ClusterAdmitted(**BY, cluster="eu-1", epoch=4),  # type: ignore[arg-type]
    "ClusterRemoved": records.ClusterRemoved(**BY, cluster="eu-1", reason="sold"),  # type: ignore[arg-type]
    "ClusterConfirmedDead": records.ClusterConfirmedDead(**BY, cluster="eu-1", reason="burnt"),  # type: ignore[arg-type]
    "Restored": records.Restored(
        **BY,  # type: ignore[arg-type]
        lineage="1800000000000-def",
        before="1700000000000-abc",
        made_ms=1_799_999_999_000,
    ),
    "Adopted": records.Adopted(**BY, **OF),  # type: ignore[arg-type]
    "Recreated": records.Recreated(
        **BY,  # type: ignore[arg-type]
        **OF,  # type: ignore[arg-type]
        submitted=SUBMITTED,
        detail="queue research is not in the backup: it counts to default",
    ),
    "Unheld": records.Unheld(**BY, **OF),  # type: ignore[arg-type]
    "Archived": records.Archived(**BY, part=7, count=192, last=UID, digest=b"d" * 32, keys=b"\x01\x80"),  # type: ignore[arg-type]
    "Recovered": records.Recovered(**BY, epochs={"eu-1": 4, "us-1": 1}),  # type: ignore[arg-type]
}

LEASE = LeaseBody(
    cluster="eu-1",
    state="Active",
    epoch=4,
    floor=24_577,
    ttl_s=30.0,
    renew_seq=91,
    holder_uid="0b1c",
    holder_boot="boot-1",
    renewal_nonce="n-91",
    nonce="w-7",
)

MESSAGES: dict[str, AnyMessage] = {
    "Renewal": messages.Renewal(
        ask_id=1,
        cluster="eu-1",
        epoch=4,
        renew_seq=92,
        ttl_s=30.0,
        holder_uid="0b1c",
        holder_boot="boot-1",
        nonce="n-92",
    ),
    "RenewalAnswer": messages.RenewalAnswer(ask_id=1, result="renewed", body=LEASE),
    "DesiredAsk": messages.DesiredAsk(ask_id=2, cluster="eu-1", since=24_576, lineage="1700000000000-abc"),
    "DesiredAnswer": messages.DesiredAnswer(
        ask_id=2,
        cluster="eu-1",
        lineage="1700000000000-abc",
        since=24_576,
        as_of=32_768,
        full=True,
        groups=(
            messages.DesiredGroup(
                uid=UID,
                token=TOKEN,
                intent="stop",
                policy="StopAndMove",
                spec_digest="d" * 32,
                bound=True,
                stop_reason="Drained",
                grace_s=45,
                after=(TOKEN,),
            ),
        ),
        ended=(TOKEN,),
        part=1,
        parts=2,
    ),
    "SpecAsk": messages.SpecAsk(ask_id=3, cluster="eu-1", uid=UID),
    "SpecAnswer": messages.SpecAnswer(ask_id=3, uid=UID, spec=b"\x78\x9c\x01"),
    "Claims": messages.Claims(ask_id=5, cluster="eu-1", groups=(messages.Claim(UID, b"\x78\x9c\x01", b"o"),)),
    "ClaimsAnswer": messages.ClaimsAnswer(ask_id=5, wanted=(UID,)),
    "Verdict": messages.Verdict(
        ask_id=4,
        **OF,  # type: ignore[arg-type]
        verdict="Refused",
        pods=0,
        reasons=("KubeletRejected",),
        detail="no",
        succeeded=False,
    ),
    "VerdictAnswer": messages.VerdictAnswer(
        ask_id=4, uid=UID, token=TOKEN, verdict="Refused", landed_at=32_768, why="HomeEnded"
    ),
    "Report": messages.Report(
        cluster="eu-1",
        lineage="1700000000000-abc",
        stamp=Stamp(2, 41),
        follows=Stamp(2, 40),
        applied=24_577,
        age_s=0.5,
        epoch=4,
        live=False,
        fence_strength="guard",
        tokens=(TOKEN,),
        rows=messages.NodeRows(
            name=("n-1",),
            product=("A100",),
            cpu_milli=(60_000,),
            memory_mib=(500_000,),
            gpus=(8,),
            gpus_free=(4,),
            gpu_free_milli=((1_000, 500),),
            cpu_milli_total=(64_000,),
            memory_mib_total=(512_000,),
            clique=("c-1",),
            rack=("r-1",),
            block=("b-1",),
            zone=("z-1",),
            usable=(True,),
            gone=("n-2",),
        ),
    ),
    "ReportWanted": messages.ReportWanted(cluster="eu-1"),
    "Doorbell": messages.Doorbell(cluster="eu-1", position=32_768),
    "JournalHint": messages.JournalHint(seq=5),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_of_version_1_are_read_and_written_as_ever(kind: str) -> None:
    golden = (GOLDEN / "records" / f"v1-{kind}.bin").read_bytes()
    assert decode_record(golden, SOMEWHERE) == RECORDS[kind]
    assert encode_record(RECORDS[kind]) == golden


@pytest.mark.parametrize("kind", MESSAGES)
def test_messages_of_version_1_are_read_and_written_as_ever(kind: str) -> None:
    golden = (GOLDEN / "messages" / f"v1-{kind}.bin").read_bytes()
    assert decode_message(golden) == MESSAGES[kind]
    assert encode_message(MESSAGES[kind]) == golden


WITH_DEVICES = msgspec.structs.replace(
    MESSAGES["Report"],
    node_kinds=messages.NodeKinds(devices=("1g.10gb", "shared/4"), devices_at=(((0, 7, 3), (1, 16, 16)),)),
)


def test_parts_of_gpus_are_told_beside_the_rows_as_ever() -> None:
    golden = (GOLDEN / "messages" / "v1-Report-devices.bin").read_bytes()
    assert decode_message(golden) == WITH_DEVICES
    assert encode_message(WITH_DEVICES) == golden


WITH_EXTRAS = msgspec.structs.replace(
    RECORDS["Submitted"],
    role_extras=(
        records.RoleExtra(
            terms=((("pool", "In", ("a", "b")), ("spot", "DoesNotExist", ())),),
            tolerations=(("team", "Equal", "vision", "NoExecute"),),
        ),
    ),
)
WITH_KINDS = msgspec.structs.replace(
    MESSAGES["Report"],
    node_kinds=messages.NodeKinds(
        kinds=(messages.NodeKind((("pool", "a"),), (("team", "vision", "NoExecute"),)),), at=(0,), tainted=(True,)
    ),
)


WITH_DATA = msgspec.structs.replace(RECORDS["Submitted"], data=(("imagenet", 150), ("laion", 0)))


WITH_SPREAD = msgspec.structs.replace(RECORDS["Submitted"], failure_spread="chat")


def test_a_group_that_rather_does_not_fail_with_others_is_read_and_written_as_ever() -> None:
    golden = (GOLDEN / "records" / "v1-Submitted-failure-spread.bin").read_bytes()
    assert decode_record(golden, SOMEWHERE) == WITH_SPREAD
    assert encode_record(WITH_SPREAD) == golden


WITH_LEVELS = msgspec.structs.replace(
    RECORDS["Submitted"],
    role_extras=(records.RoleExtra(level_required="host", level_preferred="clique", slice_pods=4),),
)


def test_a_role_with_levels_of_its_own_is_read_and_written_as_ever() -> None:
    golden = (GOLDEN / "records" / "v1-Submitted-levels.bin").read_bytes()
    assert decode_record(golden, SOMEWHERE) == WITH_LEVELS
    assert encode_record(WITH_LEVELS) == golden


WITH_SIZES = (
    ("records/v1-Submitted-elastic", msgspec.structs.replace(RECORDS["Submitted"], elastic=True)),
    ("records/v1-Placed-counts", msgspec.structs.replace(RECORDS["Placed"], counts=(1, 6))),
)
SIZED = messages.DesiredAnswer(
    ask_id=2,
    cluster="eu-1",
    lineage="l",
    since=8_193,
    as_of=24_577,
    full=False,
    groups=(
        messages.DesiredGroup(
            uid=UID, token=TOKEN, intent="run", policy="StopAndMove", spec_digest="d" * 32, counts=(1, 6)
        ),
    ),
)


RESIZED = msgspec.structs.replace(
    SIZED, groups=(msgspec.structs.replace(SIZED.groups[0], bound=True, counts=(1, 4), resized_at=24_570),)
)
OUTCOME = messages.Verdict(
    ask_id=9,
    cluster="eu-1",
    uid=UID,
    token=TOKEN,
    verdict="Sized",
    reasons=("InsufficientGpus",),
    detail="2 short",
    counts=(1, 2),
    resized_at=24_570,
)
HEARD = messages.VerdictAnswer(ask_id=9, uid=UID, token=TOKEN, verdict="Sized", landed_at=24_577, resized_at=24_570)


@pytest.mark.parametrize(
    ("name", "message"),
    [("DesiredAnswer-resized", RESIZED), ("Verdict-sized", OUTCOME), ("VerdictAnswer-sized", HEARD)],
    ids=["desired", "verdict", "answer"],
)
def test_what_messages_say_of_resizes_is_read_and_written_as_ever(name: str, message: AnyMessage) -> None:
    golden = (GOLDEN / "messages" / f"v1-{name}.bin").read_bytes()
    assert decode_message(golden) == message
    assert encode_message(message) == golden


@pytest.mark.parametrize(("name", "record"), WITH_SIZES)
def test_sizes_of_elastic_groups_are_read_and_written_as_ever(name: str, record: AnyRecord) -> None:
    golden = (GOLDEN / f"{name}.bin").read_bytes()
    assert decode_record(golden, SOMEWHERE) == record
    assert encode_record(record) == golden


def test_the_size_of_a_home_is_read_and_written_as_ever() -> None:
    golden = (GOLDEN / "messages" / "v1-DesiredAnswer-counts.bin").read_bytes()
    assert decode_message(golden) == SIZED
    assert encode_message(SIZED) == golden


def test_a_group_that_reads_data_is_read_and_written_as_ever() -> None:
    golden = (GOLDEN / "records" / "v1-Submitted-data.bin").read_bytes()
    assert decode_record(golden, SOMEWHERE) == WITH_DATA
    assert encode_record(WITH_DATA) == golden


def test_what_only_some_records_and_reports_say_is_read_and_written_as_ever() -> None:
    record, report = GOLDEN / "records" / "v1-Submitted-extras.bin", GOLDEN / "messages" / "v1-Report-kinds.bin"
    assert decode_record(record.read_bytes(), SOMEWHERE) == WITH_EXTRAS
    assert encode_record(WITH_EXTRAS) == record.read_bytes()
    assert decode_message(report.read_bytes()) == WITH_KINDS
    assert encode_message(WITH_KINDS) == report.read_bytes()


WITH_COUNTS = msgspec.structs.replace(
    RECORDS["Recovered"], recreated=2, stopped=1, stopped_groups=((UID, "eu-1", "NameTaken"),)
)
WITH_END = msgspec.structs.replace(RECORDS["Restored"], ends_at=24_577)
WITH_ORIGIN = msgspec.structs.replace(MESSAGES["SpecAnswer"], origin=b"o")
WITH_ORIGINS = msgspec.structs.replace(MESSAGES["DesiredAnswer"], specs={UID: b"s"}, origins={UID: b"o"})
WITH_LINEAGE = msgspec.structs.replace(
    MESSAGES["Report"], uids=(UID,), keeps_records=True, recovers="1800000000000-abc"
)
WITH_PROMISE = msgspec.structs.replace(MESSAGES["Report"], uids=(UID,), keeps_records=True)


@pytest.mark.parametrize(
    ("name", "record"), [("Recovered-counts", WITH_COUNTS), ("Restored-end", WITH_END)], ids=["recovered", "restored"]
)
def test_what_records_of_a_restore_say_since_groups_are_made_again(name: str, record: AnyRecord) -> None:
    golden = (GOLDEN / "records" / f"v1-{name}.bin").read_bytes()
    assert decode_record(golden, SOMEWHERE) == record
    assert encode_record(record) == golden


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SpecAnswer-origin", WITH_ORIGIN),
        ("DesiredAnswer-origins", WITH_ORIGINS),
        ("Report-records", WITH_PROMISE),
        ("Report-recovers", WITH_LINEAGE),
    ],
    ids=["spec", "desired", "report", "report of a recovery"],
)
def test_what_messages_say_since_groups_are_made_again(name: str, message: AnyMessage) -> None:
    golden = (GOLDEN / "messages" / f"v1-{name}.bin").read_bytes()
    assert decode_message(golden) == message
    assert encode_message(message) == golden


RECOVERING = msgspec.structs.replace(LEASE, state="Recovering", floor=0, lineage="1800000000000-abc")


UNDERSTANDS = msgspec.structs.replace(LEASE, understands=4)
RENEWAL_UNDERSTANDS = msgspec.structs.replace(MESSAGES["Renewal"], understands=4)


def test_what_an_agent_understands_stands_in_its_renewals_and_in_its_lease() -> None:
    lease = (GOLDEN / "messages" / "v1-lease-understands.bin").read_bytes()
    renewal = (GOLDEN / "messages" / "v1-Renewal-understands.bin").read_bytes()
    assert (decode_lease(lease), encode_lease(UNDERSTANDS)) == (UNDERSTANDS, lease)
    assert (decode_message(renewal), encode_message(RENEWAL_UNDERSTANDS)) == (RENEWAL_UNDERSTANDS, renewal)


def test_a_recovering_lease_names_its_lineage() -> None:
    golden = (GOLDEN / "messages" / "v1-lease-recovering.bin").read_bytes()
    assert decode_lease(golden) == RECOVERING
    assert encode_lease(RECOVERING) == golden


def test_leases_of_version_1_are_read_and_written_as_ever() -> None:
    golden = (GOLDEN / "messages" / "v1-lease.bin").read_bytes()
    assert decode_lease(golden) == LEASE
    assert encode_lease(LEASE) == golden


def test_every_kind_of_record_and_message_has_a_golden_file() -> None:
    assert set(RECORDS) == {kind.__name__ for kind in records.AnyRecord.__args__}
    inside_clusters = {"GuardAsk", "GuardAnswer"}  # never between two versions: agent and guard are upgraded together
    assert set(MESSAGES) | inside_clusters >= {kind.__name__ for kind in messages.AnyMessage.__args__}


def test_an_older_reader_ignores_fields_of_a_newer_writer() -> None:
    newer = {**msgspec.msgpack.decode(encode_record(RECORDS["Bound"])), "flavour": "new", "schema_version": 2}
    read = decode_record(msgspec.msgpack.encode(newer), SOMEWHERE)
    assert read == msgspec.structs.replace(RECORDS["Bound"], schema_version=2)


def test_a_record_of_an_unknown_kind_is_an_error_that_names_its_position() -> None:
    with pytest.raises(UnreadableRecordError) as caught:
        decode_record(msgspec.msgpack.encode({"kind": "Teleported"}), SOMEWHERE)
    assert caught.value.position == SOMEWHERE


def test_a_message_of_an_unknown_kind_is_set_aside_by_the_caller() -> None:
    with pytest.raises(UnreadableMessageError):
        decode_message(msgspec.msgpack.encode({"kind": "Teleported"}))
