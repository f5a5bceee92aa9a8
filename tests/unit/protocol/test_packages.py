"""The plain package names are ours, or the entry points say so and stop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from federation.protocol.packages import ROOT, Stranger, strangers


def test_here_all_packages_are_ours() -> None:
    assert strangers() == []


def test_a_package_from_elsewhere_is_named_with_its_place(tmp_path: Path) -> None:
    assert Stranger("storage", str(ROOT / "storage")) in strangers(tmp_path)
    assert str(Stranger("storage", "")) == "package storage is missing"


def test_an_entry_point_stops_with_what_to_do_when_a_name_is_anothers(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "__init__.py").touch()
    program = f"""
import sys
sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]
from federation.protocol.packages import refuse_strangers
refuse_strangers("muster", ["doctor"])
refuse_strangers("muster", ["get"])
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == (
        f"muster: package storage comes from {tmp_path / 'storage'}: another distribution owns that name\n"
        "  install muster-fleet by pipx or uv tool, or into a virtual environment of its own\n"
    )
