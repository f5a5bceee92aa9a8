"""Real servers that speak S3 and ignore its conditions: Muster must refuse to start on them, and say why."""

import pytest

from storage.errors import StoreRefusedError
from storage.open import open_store
from storage.selftest import selftest
from tests.servers.kinds import Servers


@pytest.mark.parametrize(
    ("kind", "check", "why"),
    [
        ("nanio", "create if absent", "a second create of one name was answered as done"),
        ("localbucket", "replace if unchanged", "a replace at an older version was answered as done"),
    ],
    ids=["ignores If-None-Match", "ignores If-Match"],
)
def test_a_server_that_ignores_conditions_is_refused_with_the_reason(
    kind: str, check: str, why: str, servers: Servers
) -> None:
    store = open_store(servers.new_store(kind))
    with pytest.raises(StoreRefusedError) as caught:
        selftest(store, nonce="n1")
    assert (caught.value.check, caught.value.why) == (check, why)
    assert "use another store" in str(caught.value)
    assert list(store.list("")) == []
    store.close()
