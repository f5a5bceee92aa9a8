"""Numbers and nonces that a replica hands out: unique without a clock or randomness of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from storage.blob import OpId

OWN_OPS_FROM: Final = 1 << 48  # the journal counts its operations from 1: it will not get here

NewOp = Callable[[], OpId]
NewNonce = Callable[[], str]


class Ids:
    """`boot_nonce` is drawn afresh at each start of the process, so no nonce repeats over restarts."""

    def __init__(self, boot_nonce: str) -> None:
        self._boot_nonce = boot_nonce
        self._ops = OWN_OPS_FROM
        self._nonces = 0

    def op(self) -> OpId:
        self._ops += 1
        return OpId(self._ops)

    def nonce(self) -> str:
        self._nonces += 1
        return f"{self._boot_nonce}-{self._nonces}"
