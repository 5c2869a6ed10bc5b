"""Peak memory of fetching one language: a given number of characters from a local hub.

Parquet shards of a web corpus (600 M characters of documents of about 4,000) are made once, served,
streamed, shuffled, split and written, in a process of its own whose peak resident memory is read.

    python benchmarks/fetching.py --characters 600000000 --script devanagari
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/support")]
COMMIT = "c" * 40
LETTERS = {"latin": (0x61, 26), "devanagari": (0x905, 50), "han": (0x4E00, 3000)}
JOB = """
import json, sys, time
from pathlib import Path
from langneurons.data.settings import CorpusConfig
from langneurons.data.corpus import fetch_text
source = json.loads(sys.argv[1])
start = time.monotonic()
fetch_text(CorpusConfig.model_validate({"source": source}), "xx", sys.argv[2], sys.argv[3])
seconds = time.monotonic() - start
# Not getrusage: what that reports of a process begins with the memory of the one that started it.
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
print(json.dumps({"seconds": seconds, "peak": peak} | json.load(open(sys.argv[3]))))
"""


def documents(characters: int, script: str, length: int, seed: int) -> list[str]:
    """Return documents of random words, none equal to another."""
    first, number = LETTERS[script]
    draw = random.Random(seed)
    letters = [chr(first + k) for k in range(number)]
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(5000)]
    found, total = [], 0
    while total < characters:
        words_of = draw.choices(words, k=max(1, int(draw.expovariate(6.5 / length))))
        found.append(f"{seed} {len(found)} " + " ".join(words_of))
        total += len(found[-1])
    return found


def main() -> None:
    """Make the shards, fetch them, print what it took."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from hub.server import Hub

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--characters", type=int, default=600_000_000)
    parser.add_argument("--script", choices=LETTERS, default="latin")
    parser.add_argument("--length", type=int, default=4000, help="mean characters of a document")
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--group", type=int, default=1000, help="rows of a row group")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for shard in range(given.shards):
            texts = documents(
                given.characters * 11 // (10 * given.shards), given.script, given.length, shard
            )
            rows = {"text": texts, "url": [f"https://example.org/{i}" for i in range(len(texts))]}
            path = Path(folder) / f"{shard}.parquet"
            pq.write_table(pa.table(rows), path, row_group_size=given.group)
            files[f"xx/part_{shard:05d}.parquet"] = path.read_bytes()
            path.unlink()
        listed = [{"config_name": "xx", "data_files": "xx/*.parquet"}]
        files["README.md"] = f"---\nconfigs: {json.dumps(listed)}\n---\n"
        hub = Hub()
        hub.add("datasets", "owner/text", files, COMMIT)
        source = {"kind": "hub", "dataset": "owner/text", "revision": COMMIT, "id_field": None}
        source |= {"characters": given.characters}
        environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": folder}
        environment["PYTHONPATH"] = str(ROOT / "src")
        arguments = [json.dumps(source), f"{folder}/xx.jsonl", f"{folder}/xx.json"]
        done = subprocess.run(
            [sys.executable, "-c", JOB, *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stderr[-4000:])
        found = json.loads(done.stdout.splitlines()[-1])
        size = Path(folder, "xx.jsonl").stat().st_size
        print(
            f"{given.script}, {found['characters'] / 1e6:.0f} M characters in"
            f" {found['documents']:,} documents ({size / 1e9:.2f} GB): peak {found['peak']:.0f} MB,"
            f" {found['seconds']:.0f} s, {hub.sent / 1e9:.2f} GB sent"
        )


if __name__ == "__main__":
    main()
