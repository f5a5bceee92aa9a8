"""The node of the conformance cases, as a process: python -m tests.kubernetes.node FOLDER API-URL TOKEN-FILE PORT."""

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from cluster_agents.simkube.kubelet import Timing
from cluster_agents.simkube.kubelet_main import KubeletShell
from tests.contract.kube_api import NODE

TIMING = Timing(start_delay_s=(0.0, 0.0), stop_delay_s=(0.0, 0.0), guard_renewal_s=None)


async def main(folder: Path, url: str, token: str, port: int) -> None:
    shell = KubeletShell("c-1", [NODE], TIMING, api_url=url, guard_url=None, folder=folder, token=token)
    runner = web.AppRunner(shell.admin(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await shell.run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_text(), int(sys.argv[4])))
