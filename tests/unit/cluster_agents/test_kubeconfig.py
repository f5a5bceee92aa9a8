"""A kubeconfig that is none is told in words, with the file."""

import asyncio
from pathlib import Path

import pytest

from cluster_agents.kubernetes.transport import KubeConfigError, connect


@pytest.mark.parametrize(
    "content", [b"", b"- a", b"\xff\xfe", b"a: [", b"clusters: 5\ncontexts: 7\ncurrent-context: x"]
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    with pytest.raises(KubeConfigError, match=f"{path} is no kubeconfig file"):
        asyncio.run(connect(kubeconfig=str(path)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KubeConfigError, match=f"{tmp_path}/none"):
        asyncio.run(connect(kubeconfig=f"{tmp_path}/none"))
