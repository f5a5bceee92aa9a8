"""The token file: who may call, and what is wrong with a file that does not say so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from federation.server.tokens import TokenFileError, Verb, load, make

SHA256 = hashlib.sha256(b"secret").hexdigest()


def written(path: Path, *entries: Any) -> Path:
    path.write_text(json.dumps({"principals": entries}))
    path.chmod(0o600)
    return path


def may(**changes: Any) -> dict[str, Any]:
    return {"name": "sara", "token": "secret", "verbs": ["view"]} | changes


def test_who_calls_is_known_by_token_or_by_its_digest(tmp_path: Path) -> None:
    principals = load(written(tmp_path / "t", may(token="other"), may(name="tom", token=None, token_sha256=SHA256)))
    found = principals.of_token("secret")
    assert found is not None
    assert (found.name, found.verbs) == ("tom", {Verb.VIEW})
    assert principals.of_token("secret ") is None


def test_a_fresh_file_can_be_read(tmp_path: Path) -> None:
    make(tmp_path / "t", ["c-1"])
    assert {one.name for one in load(tmp_path / "t").by_digest.values()} == {"operator", "agent:c-1"}


def test_one_name_may_have_two_tokens_while_they_are_changed(tmp_path: Path) -> None:
    assert len(load(written(tmp_path / "t", may(), may(token="next"))).by_digest) == 2


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        (["sara"], "principals[0] is not a mapping"),
        ([may(name="")], "principals[0]: name is missing"),
        ([may(token=None)], "principals[0]: token is not one word of ASCII characters"),
        ([may(token="")], "principals[0]: token is not one word of ASCII characters"),
        ([may(token="tökèn")], "principals[0]: token is not one word of ASCII characters"),
        ([may(token_sha256="ab")], "principals[0]: token_sha256 is not 64 hexadecimal digits"),
        ([may(verbs="view")], "principals[0]: verbs is not a list of words"),
        ([may(queues=[1])], "principals[0]: queues is not a list of words"),
        ([may(verbs=["fly"])], "principals[0]: unknown verb 'fly'; known: view, submit, operate, force"),
        ([may(queue="research")], "principals[0]: unknown field 'queue'"),
        ([may(cluster="c-1")], "principals[0]: sara is the agent of c-1, which has no verbs"),
        ([may(), may(name="root", verbs=["force"])], "principals[1]: root has the token of sara"),
        ([may(), may(name="root", token=None, token_sha256=SHA256)], "principals[1]: root has the token of sara"),
    ],
)
def test_an_entry_that_says_nothing_useful_is_named(tmp_path: Path, entries: list[Any], why: str) -> None:
    with pytest.raises(TokenFileError) as caught:
        load(written(tmp_path / "t", *entries))
    assert f"{tmp_path}/t: {why}" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{}", '{"principals": {}}'])
def test_another_document_is_refused_with_the_form_it_should_have(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(TokenFileError, match=r'want \{"principals": \[...\]\}'):
        load(tmp_path / "t")
