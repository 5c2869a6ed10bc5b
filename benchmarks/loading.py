"""Seconds until a prepared model can be used, and what that takes of memory.

    as prepared           the prepared files in their own format (float32 for the embedded model)
    bfloat16              converted while they are read
    nf4, quantised        quantised to 4 bits on loading, by every job
    nf4, read             quantised once beforehand (langneurons.models.prepare.quantize_model)

Each load is a process of its own, in turn; seconds are of `load_model`, imports left out, files in
the page cache; those of the tokenizer, which every format reads alike, stand apart. Before that,
the weights of both nf4 routes must be equal to the bit.

`--random LAYERS HIDDEN NEURONS` loads a Llama of random weights in bfloat16 instead, with 8,192
tokens, so that nearly all weights are quantised as in large models; its tokenizer is `--model`'s.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import median, parser, publish, set_threads, table

FORMATS = {
    "as prepared": ("float32", "none"),
    "bfloat16": ("bfloat16", "none"),
    "nf4, quantised": ("bfloat16", "nf4"),
    "nf4, read": ("bfloat16", "nf4"),
}


def main() -> None:
    """Quantise once, compare, load in turn, print."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--child", nargs=2, metavar=("NAME", "MANIFEST"))
    shape = ("LAYERS", "HIDDEN", "NEURONS")
    options.add_argument("--random", nargs=3, type=int, metavar=shape, help="see above")
    given = options.parse_args()
    set_threads(given.threads)
    if given.child:
        print(json.dumps(_load(*given.child, given.model)))
        return
    from langneurons.models.prepare import prepare_model, quantize_model

    with tempfile.TemporaryDirectory() as folder:
        if given.random:
            given.model = _random(Path(folder, "random"), given.model, *given.random)
        plain, packed = Path(folder, "manifest.json"), Path(folder, "nf4", "manifest.json")
        entry = _entry("nf4, read", given.model)
        prepare_model(entry, plain.parent)
        quantize_model(entry, plain, packed.parent)
        manifests = dict.fromkeys(FORMATS, plain) | {"nf4, read": packed}
        sizes = {name: _size(manifest) for name, manifest in manifests.items()}
        found: dict[str, list[dict]] = {name: [] for name in FORMATS}
        for number in range(given.repeats + 1):
            for name in list(FORMATS)[:: 1 if number % 2 else -1]:
                command = [sys.executable, __file__, "--model", given.model]
                command += ["--threads", str(given.threads), "--child", name, str(manifests[name])]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                if number:  # the first round fills the page cache
                    found[name].append(json.loads(done.stdout.splitlines()[-1]))
    digests = {one["weights"] for name in list(FORMATS)[2:] for one in found[name]}
    if len(digests) != 1:
        raise SystemExit("weights quantised beforehand differ from those quantised on loading")
    rows = []
    for name, runs in found.items():
        seconds = [one["seconds"] for one in runs]
        low, high = min(seconds), max(seconds)
        peak = median([one["peak"] for one in runs])
        reading = median([one["tokenizer"] for one in runs])
        rows.append(
            [
                name,
                f"{sizes[name] / 1e6:,.0f}",
                f"{median(seconds):.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{median(seconds) - reading:.2f}",
                f"{peak / 1e6:,.0f}",
            ]
        )
    header = ["format", "read, MB", "s", "range", "without tokenizer", "peak above imports, MB"]
    of = "x".join(map(str, given.random)) + ", random" if given.random else Path(given.model).name
    note = f"{of}, {given.repeats} rounds."
    publish("loading", table("Loading a model", header, rows, note))


def _random(folder: Path, tokenizer: str, layers: int, hidden: int, neurons: int) -> str:
    """Write a Llama of random weights in bfloat16, and the tokenizer; return the folder."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=8192,
        hidden_size=hidden,
        intermediate_size=neurons,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 128,
        num_key_value_heads=max(hidden // 512, 1),
    )
    torch.set_default_dtype(torch.bfloat16)
    with transformers.initialization.no_init_weights():
        model = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.02, generator=generator)
    model.save_pretrained(folder)
    for file in Path(tokenizer).glob("*token*"):
        shutil.copy(file, folder)
    return str(folder)


def _entry(name: str, model: str):
    from langneurons.models.settings import ModelEntry

    dtype, quantization = FORMATS[name]
    source = {"kind": "local", "path": model}
    return ModelEntry(source=source, dtype=dtype, quantization=quantization)


def _size(manifest: Path) -> int:
    files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    return sum(size for name, size in files.items() if name.endswith(".safetensors"))


def _load(name: str, manifest: str, model: str) -> dict:
    """Load once; return seconds, bytes, and a digest of the weights."""
    import hashlib
    import logging
    import time

    import bitsandbytes  # noqa: F401  the import is no part of the load
    import torch
    import transformers.models.gemma3  # noqa: F401
    from common import peak_memory

    from langneurons.models.load import load_model, load_tokenizer

    logging.disable(logging.WARNING)
    before, begin = peak_memory(), time.perf_counter()
    loaded, _ = load_model(_entry(name, model), Path(manifest))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - begin, peak_memory() - before
    begin = time.perf_counter()
    load_tokenizer(Path(manifest))
    reading = time.perf_counter() - begin
    checksum = hashlib.sha256()
    for key, value in sorted(loaded.state_dict().items()):
        checksum.update(key.encode() + value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    found = {"seconds": seconds, "tokenizer": reading, "peak": peak}
    return found | {"weights": checksum.hexdigest()}


if __name__ == "__main__":
    main()
