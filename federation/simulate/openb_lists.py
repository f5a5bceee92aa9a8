"""Node and pod lists in the format of the openb trace: CSV, gzipped or not. What is done with them is not known here.

The format: alibaba/clusterdata, cluster-trace-gpu-v2023. Columns are found by name, and unknown ones are passed over.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeVar

ROWS_MAX: Final = 1_000_000  # of one list: far beyond any published one, and some hundred MiB
GPUS_PER_NODE_MAX: Final = 64  # device columns are as wide as the largest node
AMOUNT_MAX: Final = 1 << 40  # milli CPUs, MiB or seconds: sums over a list stay exact in 64 bits
GPU_MILLI: Final = 1_000  # of one GPU
DIGITS_MAX: Final = 64  # of a number; Python turns those with thousands into none
GZIP_MAGIC: Final = b"\x1f\x8b"
MORE: Final = "\n"  # the column of what stands beyond the header's last one: no column has this name

T = TypeVar("T")
Named = TypeVar("Named", "NodeSpec", "PodSpec")


class NodeSpec(NamedTuple):
    """One node. `model` is empty on nodes without GPUs."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


class PodShape(NamedTuple):
    """All that decides where a pod fits: `gpus` devices with `gpu_milli` each, of one of `models` (any if empty)."""

    cpu_milli: int
    memory_mib: int
    gpus: int
    gpu_milli: int
    models: tuple[str, ...]

    @property
    def demand_milli(self) -> int:
        return self.gpus * self.gpu_milli


class PodSpec(NamedTuple):
    """One pod; seconds from the start of the trace, -1 where the list does not say."""

    name: str
    shape: PodShape
    created_s: int = -1
    deleted_s: int = -1


class ListError(ValueError):
    """A list cannot be used; `line` is 0 where the whole file is meant."""

    def __init__(self, path: Path, line: int, what: str) -> None:
        super().__init__(f"{path}{f', line {line}' if line else ''}: {what}")
        self.path = path
        self.line = line
        self.what = what


def read_nodes(path: Path) -> tuple[NodeSpec, ...]:
    """The nodes with GPUs, by name: those without take no part in the exam. ListError, or OSError, without any."""
    nodes = read_rows(path, ("sn", "cpu_milli", "memory_mib", "gpu"), _once(_node))
    with_gpus = sorted(node for node in nodes if node.gpus)
    if not with_gpus:
        raise ListError(path, 0, "no node has a GPU")
    return tuple(with_gpus)


def read_pods(path: Path) -> tuple[PodSpec, ...]:
    """The pods by name. ListError, or OSError, if there are none, or if none asks for a GPU."""
    pods = sorted(read_rows(path, ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"), _once(_pod)))
    if not any(pod.shape.demand_milli for pod in pods):
        raise ListError(path, 0, "no pod asks for a GPU")
    return tuple(pods)


def refuse_nameless_models(path: Path, nodes: Sequence[NodeSpec], pods: Sequence[PodSpec]) -> None:
    """ListError where pods name models and the node list at `path` has none: all of those would be refused."""
    asking = next((pod for pod in pods if pod.shape.models), None)
    if asking is not None and not any(node.model for node in nodes):
        raise ListError(path, 0, f"no node has a model, and {asking.name} asks for one (gpu_spec)")


class Row:
    """One line, with errors that say where they are."""

    def __init__(self, path: Path, line: int, fields: Mapping[str, str | None]) -> None:
        self.path, self.line, self._fields = path, line, fields

    def text(self, field: str) -> str:
        return (self._fields.get(field) or "").strip()

    def name(self, field: str) -> str:
        return self.text(field) or self.fail(f"{field} is empty")

    def amount(self, field: str, limit: int, *, absent: int | None = None) -> int:
        """A whole number from 0 to `limit`."""
        written = self.text(field)
        if not written and absent is not None:
            return absent
        number = written.removesuffix(".0")
        readable = number.isascii() and number.isdecimal() and len(number) <= DIGITS_MAX
        if not readable or int(number) > limit:
            self.fail(f"{field} {written!r} is not a whole number from 0 to {limit}")
        return int(number)

    def fail_if(self, wrong: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
        if wrong:
            self.fail(what)

    def fail(self, what: str) -> NoReturn:
        raise ListError(self.path, self.line, what)


def _node(row: Row) -> NodeSpec:
    return NodeSpec(
        name=row.name("sn"),
        cpu_milli=row.amount("cpu_milli", AMOUNT_MAX),
        memory_mib=row.amount("memory_mib", AMOUNT_MAX),
        gpus=row.amount("gpu", GPUS_PER_NODE_MAX),
        model=row.text("model"),
    )


def _pod(row: Row) -> PodSpec:
    gpus, milli = row.amount("num_gpu", GPUS_PER_NODE_MAX), row.amount("gpu_milli", GPU_MILLI)
    row.fail_if(bool(gpus) != bool(milli), f"num_gpu {gpus} and gpu_milli {milli}: both or neither must be 0")
    models = {model.strip() for model in row.text("gpu_spec").split("|")} - {""}
    shape = PodShape(
        cpu_milli=row.amount("cpu_milli", AMOUNT_MAX),
        memory_mib=row.amount("memory_mib", AMOUNT_MAX),
        gpus=gpus,
        gpu_milli=milli,
        models=tuple(sorted(models)),
    )
    created_s = row.amount("creation_time", AMOUNT_MAX, absent=-1)
    return PodSpec(row.name("name"), shape, created_s, row.amount("deletion_time", AMOUNT_MAX, absent=-1))


def read_rows(path: Path, needed: tuple[str, ...], parse: Callable[[Row], T]) -> list[T]:
    """A list's rows as `parse` makes them. ListError, with the line, where the file or one of them is no use."""
    found: list[T] = []
    try:
        for row in _rows(path, needed):
            if len(found) == ROWS_MAX:
                raise ListError(path, row.line, f"more than {ROWS_MAX} rows")
            found.append(parse(row))
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ListError(path, 0, f"not a CSV file, gzipped or not: {error}") from error
    return found


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[Row]:
    with path.open("rb") as file:
        packed = path.suffix == ".gz" or file.peek(2)[:2] == GZIP_MAGIC
        lines = io.TextIOWrapper(gzip.GzipFile(fileobj=file) if packed else file, encoding="utf-8-sig", newline="")
        reader = csv.DictReader(lines, restkey=MORE)
        reader.fieldnames = header = [field.strip() for field in reader.fieldnames or ()]
        for field in needed:
            if field not in header:
                raise ListError(path, 1, f"column {field} is missing")
        for field in header:
            if field and header.count(field) > 1:
                raise ListError(path, 1, f"column {field} is there twice")
        for fields in reader:
            row = Row(path, reader.line_num, fields)
            row.fail_if(MORE in fields, f"there are more fields than the {len(header)} of the header")
            yield row


def _once(parse: Callable[[Row], Named]) -> Callable[[Row], Named]:
    """`parse`, which refuses a name that an earlier row had."""
    line_of: dict[str, int] = {}

    def parsed(row: Row) -> Named:
        found = parse(row)
        first = line_of.setdefault(found.name, row.line)
        row.fail_if(first != row.line, f"{found.name} is listed twice, first in line {first}")
        return found

    return parsed
