"""The graph on a real SLURM of four nodes on one host, through the shipped profile, with faults.

Run by `make cluster` (root on Debian or Ubuntu; SLURM is installed if it is missing). The same
graph runs undisturbed on this machine first; then on the cluster, where a seeded schedule strikes
its jobs. Every file of results must be the same to the byte.
"""

import os
import re
import time
from contextlib import ExitStack

import cluster
import pytest
from cluster import Faults, controller, digests, prepared, sh

pytestmark = pytest.mark.slurm
FAULTS = int(os.environ.get("LANGNEURONS_FAULTS", "10"))
SEED = int(os.environ.get("LANGNEURONS_SEED", "0"))


@pytest.fixture(scope="module", autouse=True)
def slurm():
    """Bring a SLURM up and down again."""
    if not cluster.possible():
        pytest.skip("a SLURM of one host needs root on Debian or Ubuntu")
    with ExitStack() as stack:
        try:
            stack.enter_context(cluster.running())
        except RuntimeError as error:
            if os.environ.get("LANGNEURONS_SLURM") != "optional":
                raise
            pytest.skip(f"no SLURM can be brought up on this machine: {error}")
        yield


def said(checkout) -> str:
    return (checkout.path / "controller.log").read_text(errors="replace")


def test_faults_lose_nothing_and_change_nothing(tmp_path):
    quiet = prepared(tmp_path / "quiet")
    quiet.make()
    struck = prepared(tmp_path / "struck")
    with cluster.small_disk(struck.path / "results") as mounted:
        disk = struck.path / "results" if mounted else None
        faults = Faults(FAULTS, SEED, disk)
        faults.start()
        try:
            code = controller(struck).wait(timeout=900)
            # A job that every attempt was struck at ends the run; an operator starts it again.
            for _ in range(2 * (code != 0)):
                code = code and controller(struck).wait(timeout=900)
        finally:
            faults.end()
            cluster.leftovers(struck)
        assert code == 0, f"{faults.done}\n{said(struck)[-8000:]}"
        assert len(faults.done) >= min(FAULTS, 5), f"the run was over too soon: {faults.done}"
        expected, found = digests(quiet), digests(struck)
        assert expected.keys() == found.keys()
        different = [name for name in expected if expected[name] != found[name]]
        assert not different, f"after {faults.done}: {different}"
        kinds = [kind for kind, _ in faults.done]
        print(f"{len(kinds)} faults ({', '.join(kinds)}): {len(found)} files equal to the byte")
        assert controller(struck, "-n").wait(timeout=120) == 0
        assert "Nothing to be done" in said(struck)
    assert not cluster.told(struck)


def test_jobs_ask_for_gpus_and_get_them(tmp_path):
    script = tmp_path / "probe.sh"
    script.write_text("#!/bin/sh\necho gpus=$CUDA_VISIBLE_DEVICES > " + str(tmp_path / "out"))
    sh("sbatch", "--wait", "--gpus=1", "--output=/dev/null", str(script))
    assert (tmp_path / "out").read_text().strip() != "gpus="
    checkout = prepared(tmp_path / "asked")
    target = "results/tiny/shards/en/0.safetensors"
    running = controller(checkout, target)
    asked = {}
    while running.poll() is None:
        for job in sh("scontrol", "show", "job", "--oneliner", check=False).splitlines():
            rule = re.search(r"Comment=rule_(\w+)_wildcards", job)
            gpus = re.search(r"TresPerJob=gres:gpu:(\d+)", job)
            if rule and f"WorkDir={checkout.path}" in job:
                asked[rule.group(1)] = int(gpus.group(1)) if gpus else 0
        time.sleep(0.2)
    assert running.wait(timeout=300) == 0, said(checkout)[-4000:]
    assert asked == {"pack_corpus": 0, "collect_statistics": 1}


def test_a_job_killed_for_its_memory_gets_more(tmp_path):
    checkout = prepared(tmp_path / "tight", memory=500)
    target = "results/tiny/shards/en/0.safetensors"
    code = controller(checkout, target).wait(timeout=600)
    assert code == 0, said(checkout)[-4000:]
    assert cluster.memory_kills(checkout) >= 1
    assert "mem_mb=500," in said(checkout) and "mem_mb=1000," in said(checkout)


def test_a_second_controller_is_turned_away(tmp_path):
    checkout = prepared(tmp_path / "two")
    target = "results/tiny/shards/en/0.safetensors"
    first = controller(checkout, target)
    while not (checkout.path / ".snakemake" / "locks").exists() or not any(
        (checkout.path / ".snakemake" / "locks").iterdir()
    ):
        assert first.poll() is None, said(checkout)[-4000:]
        time.sleep(0.05)
    assert controller(checkout, target).wait(timeout=120) != 0
    assert "cannot be locked" in said(checkout)
    assert first.wait(timeout=300) == 0, said(checkout)[-4000:]
    assert (checkout.path / target).is_file()
