"""Layers on several devices, proven on two pretended ones; see split_cases.py."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent / "support"


def test_a_model_on_two_devices_gives_what_it_gives_on_one():
    """In a process of its own: the second kind of device would be seen by every other test."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, "split_cases.py"], cwd=HERE, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
