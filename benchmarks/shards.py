"""Statistics of one language on a SLURM of four nodes: in one shard, and in four, one per node.

Runs on the one-host SLURM of tests/slurm (root on Debian or Ubuntu), so the four nodes share this
machine's cores: the speed-up is bounded by their number, and each shard pays for a start and a
model load of its own. The merged statistics must be equal to the byte.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from common import ROOT, parser, publish, table

sys.path[:0] = [str(ROOT / name) for name in ("tests", "tests/support", "tests/slurm")]


def run(folder: Path, *arguments: str) -> None:
    """Run Snakemake in a folder; end with what it says if it fails."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}")


def measured(folder: Path, shards: int) -> tuple[float, float]:
    """Return the seconds from the first job's start to the last one's end, and their sum."""
    records = [
        json.loads(path.read_text())
        for path in (folder / "logs/collect_statistics").rglob("*.json")
    ]
    if len(records) != shards:
        raise SystemExit(f"{len(records)} records of {shards} shards")
    starts = [datetime.fromisoformat(one["started"]).timestamp() for one in records]
    ends = [start + one["seconds"] for start, one in zip(starts, records, strict=True)]
    return max(ends) - min(starts), sum(one["seconds"] for one in records)


def documents(lang: str, tokens: int) -> str:
    """Return JSONL with at least so many tokens: sentences of the mini corpus in random orders."""
    from langneurons.base.io import read_jsonl
    from langneurons.data.corpus import MINI

    sentences = [row["text"] for row in read_jsonl(MINI / "corpus" / f"{lang}.jsonl")]
    order, lines, words = random.Random(0), [], 0
    while words < 1.2 * tokens:
        text = " ".join(order.sample(sentences, min(12, len(sentences))))
        lines.append(json.dumps({"text": text}, ensure_ascii=False))
        words += len(text.split())
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    options = parser(__doc__, repeats=1)
    options.add_argument("--tokens", type=int, default=60_000)
    options.add_argument("--shards", type=int, nargs="+", default=[1, 4])
    given = options.parse_args()
    import cluster
    from test_workflow import Checkout

    from langneurons.base.io import write_text

    rows, files = [], {}
    with tempfile.TemporaryDirectory() as name, cluster.running():
        checkout = Checkout(Path(name))
        for lang in ("en", "vi"):
            write_text(checkout.path / f"{lang}.jsonl", documents(lang, given.tokens))
        for shards in given.shards:
            checkout.config = {
                "name": f"shards{shards}",
                "models": {"gemma": {"source": {"kind": "local", "path": given.model}}},
                "language_sets": {"pair": ["en", "vi"]},
                "corpus": {
                    "source": {"kind": "jsonl", "path": "{lang}.jsonl"},
                    "tokens": given.tokens,
                    "heldout_tokens": 1000,
                },
                "statistics": {"shards": shards},
                "selections": {"lape": {"method": "lape"}},
                "runtime": {"gpu": 1, "threads": 1, "mem_mb": 4000},
            }
            checkout.save()
            corpus = "results/gemma/corpora/en.safetensors"
            run(checkout.path, corpus, "-c1", "--configfile", "tiny.yaml")
            target = "results/gemma/activations/en.safetensors"
            start = time.monotonic()
            process = cluster.controller(checkout, target)
            if process.wait():
                raise SystemExit((checkout.path / "controller.log").read_text()[-4000:])
            wall = time.monotonic() - start
            jobs, total = measured(checkout.path, shards)
            files[shards] = (checkout.path / target).read_bytes()
            rows.append((shards, f"{wall:.1f}", f"{jobs:.1f}", f"{total:.1f}"))
            for part in ("results/gemma/activations", "results/gemma/shards", "logs"):
                subprocess.run(["rm", "-rf", str(checkout.path / part)], check=True)
    if len(set(files.values())) != 1:
        raise SystemExit("the merged statistics differ")
    header = ["shards", "s, command", "s, first start to last end", "s, sum over the jobs"]
    note = f"{given.tokens:,} tokens; merged statistics equal to the byte."
    publish("shards", table("Shards over four nodes", header, rows, note))


if __name__ == "__main__":
    main()
