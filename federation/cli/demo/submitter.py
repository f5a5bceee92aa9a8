"""Hands the jobs in, each at its time, and remembers what was acknowledged. Threads, each with a client of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import muster
from federation.cli.demo.checks import Acknowledged
from federation.cli.demo.workload import Job, manifest
from muster.retry import RetryRule

ATTEMPTS_MAX: Final = 60
HOLD_S: Final = 0.2  # how often a held-back job asks again
THREADS: Final = 4  # one waits for the journal's disk; together they share its batches


@dataclass(slots=True)
class Submitter:
    """`start` it once; `acknowledged` grows while it runs, and `check` raises what went wrong."""

    server_url: str
    token: str
    jobs: Sequence[Job]
    may_go_on: Callable[[], bool] = lambda: True
    acknowledged: list[Acknowledged] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)  # from sending to the answer, one per acknowledgement
    _left: deque[Job] = field(default_factory=deque)
    _began_s: float = 0.0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _failures: list[BaseException] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._left.extend(self.jobs)
        self._began_s = time.monotonic()
        self._threads = [threading.Thread(target=self._run, name="submitter", daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Nothing more is submitted once this returns."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        if self._failures:
            raise self._failures[0]

    @property
    def all_in(self) -> bool:
        return len(self.acknowledged) == len(self.jobs)

    def _run(self) -> None:
        try:
            with muster.Client(self.server_url, self.token, retry=RetryRule(ATTEMPTS_MAX)) as client:
                while (job := self._next()) is not None:
                    if not self._wait_for(job):
                        return
                    sent_s = time.monotonic()
                    uid = client.submit(manifest(job), request_id=f"demo-{job.name}").uid
                    self.answer_s.append(time.monotonic() - sent_s)
                    self.acknowledged.append(Acknowledged(uid, job))
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            self._failures.append(error)

    def _wait_for(self, job: Job) -> bool:
        """Until the job's time has come, and later while `may_go_on` says no; False when we are to stop."""
        pause_s = self._began_s + job.at_s - time.monotonic()
        while not self._stopping.wait(max(0.0, pause_s)):
            if self.may_go_on():
                return True
            pause_s = HOLD_S
        return False

    def _next(self) -> Job | None:
        try:
            return self._left.popleft()
        except IndexError:
            return None
