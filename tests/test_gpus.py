"""Jobs beside each other on one workstation take different GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from langneurons.runtime import gpus

HOLD = (
    "import sys; from pathlib import Path; from langneurons.runtime.gpus import claim;"
    "print(*claim(int(sys.argv[1]), sys.argv[3:], Path(sys.argv[2]), 0.05), flush=True);"
    "sys.stdin.read()"
)


def holder(folder: Path, number: int, *names: str) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(number), str(folder), *names]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_each_process_gets_its_own_and_a_killed_one_gives_back(tmp_path):
    first, second = (holder(tmp_path, 1, "0", "1") for _ in range(2))
    taken = [first.stdout.readline().strip(), second.stdout.readline().strip()]
    assert sorted(taken) == ["0", "1"]
    third = holder(tmp_path, 1, "0", "1")
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(timeout=1)
    first.kill()
    first.wait()
    assert third.stdout.readline().strip() == taken[0]
    for process in (second, third):
        process.kill()
        process.wait()


def test_a_job_that_asks_for_more_than_there_are_gets_all(tmp_path):
    process = holder(tmp_path, 8, "GPU-a1", "GPU-b2")
    assert process.stdout.readline().split() == ["GPU-a1", "GPU-b2"]
    process.kill()
    process.wait()


def test_what_is_present(tmp_path):
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus.present({}, tmp_path) == ["0", "2", "10"]
    assert gpus.present({"CUDA_VISIBLE_DEVICES": "1,3"}, tmp_path) == ["1", "3"]
    assert gpus.present({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []


def test_slurm_and_a_single_gpu_are_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    for changes in ({"SLURM_JOB_ID": "1", gpus.VISIBLE: "0,1"}, {gpus.VISIBLE: "1"}):
        with monkeypatch.context() as patch:
            for key, value in changes.items():
                patch.setenv(key, value)
            gpus.take(1)
            assert gpus.os.environ[gpus.VISIBLE] == changes[gpus.VISIBLE]
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv(gpus.VISIBLE, "4,7")
    gpus.take(1)
    assert gpus.os.environ[gpus.VISIBLE] in ("4", "7")
