"""Everything that a GPU is asked to do: check it, time it, keep a table. One script, one call.

    benchmarks/gpu.py                                    # on a GPU: both 8B-class shapes, bfloat16
    benchmarks/gpu.py --shape mistral-nemo --minutes 9
    benchmarks/gpu.py --device cpu --shape tiny          # the same here, in a minute

First every check of `sections/` runs, on small shapes: results against float64 or CPU references.
If one fails, the script ends with an error and times nothing. Then the sections are timed with the
shape's exact sizes and random weights, in their order; the table is written after each. With
`--minutes`, sections that would begin later are left out by name, and rounds under way end early.

Seconds are medians over interleaved rounds; a ratio is the median of the ratios within a round,
beside it its smallest and largest. Achieved TFLOP/s and GB/s follow from the operations and bytes
of the work itself; the share is that of the card's measured matrix rate. The floor is the time
below which this hardware cannot go, from the measured rates.
"""

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path

from common import RESULTS, machine, median, set_threads

HEADER = ["what", "ms", "ratio", "range", "goal", "TFLOP/s", "share", "GB/s", "floor, ms"]


def main(arguments: list[str] | None = None) -> int:
    """Check, time, write; return 1 if a check failed or a section ended with an error."""
    from sections import MODULES, SHAPES

    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--device", choices=["cuda", "cpu"], help="default: a GPU if there is one")
    options.add_argument("--dtype", choices=["bfloat16", "float16", "float32"])
    options.add_argument("--shape", nargs="+", choices=list(SHAPES), metavar="SHAPE")
    options.add_argument("--section", nargs="+", choices=MODULES, metavar="SECTION")
    options.add_argument("--repeats", type=int, help="rounds, default 7 on a GPU, 3 on a CPU")
    options.add_argument("--tokens", type=int, help="of a batch, default 8192 on a GPU, 1024 else")
    options.add_argument("--length", type=int, default=512, help="of a block, default 512")
    options.add_argument("--minutes", type=float, default=float("inf"), help="time budget")
    options.add_argument("--threads", type=int, default=2, help="CPU threads, default 2")
    options.add_argument("--results", type=Path, default=RESULTS, help="where tables are kept")
    options.add_argument("--checks-only", action="store_true", help="time nothing")
    given = options.parse_args(arguments)
    begin = time.monotonic()
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    set_threads(given.threads)
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        options.error("no GPU is seen; --device cpu runs the same on a CPU")
    on_gpu = torch.cuda.is_available()
    given.device = "cuda" if on_gpu else "cpu"
    torch.set_num_threads(given.threads)
    given.dtype = given.dtype or ("bfloat16" if on_gpu else "float32")
    given.shape = given.shape or (["llama-3.1-8b", "mistral-nemo"] if on_gpu else ["tiny"])
    given.repeats = given.repeats or (7 if on_gpu else 3)
    given.tokens = given.tokens or (8192 if on_gpu else 1024)
    return run(given, begin + 60 * given.minutes)


def run(given, deadline: float) -> int:
    """Run checks and timings with all options settled."""
    import sections
    from sections import Setting

    chosen = tuple(given.section or sections.MODULES)
    sections.load(tuple(dict.fromkeys(("card", *chosen))))
    settings = [
        Setting(given.device, given.dtype, shape, given.repeats, given.tokens, given.length)
        for shape in given.shape
    ]
    found = Report(given)
    for section, function in sections.CHECKS:
        if section in chosen:
            found.check(section, function, settings[0])
    found.write()
    if found.failed:
        print(f"failed: {'; '.join(found.failed)}; nothing was timed", file=sys.stderr)
        return 1
    for setting in [] if given.checks_only else settings:
        setting.deadline = deadline
        for section, function in sections.TIMINGS:
            # The yardsticks belong to every section.
            if section not in (*chosen, "card"):
                continue
            if time.monotonic() > deadline:
                found.dropped.append(f"{section}.{function.__name__} at {setting.shape}")
                continue
            found.time(section, function, setting)
            found.write()
        setting.release()
    found.write()
    print(found.path.read_text(encoding="utf-8"))
    if found.failed:
        print(f"failed: {'; '.join(found.failed)}", file=sys.stderr)
    return 1 if found.failed else 0


class Report:
    """What was found so far, as JSON with every round and as a Markdown table."""

    def __init__(self, given):
        self.given = given
        self.checks: list[dict] = []
        self.timings: list[dict] = []
        self.failed: list[str] = []
        self.dropped: list[str] = []
        self.rates: dict[str, dict] = {}
        self.load = os.getloadavg()[0]
        self.path = Path(given.results, f"gpu-{given.device}-{'-'.join(given.shape)}.md")

    def check(self, section: str, function, setting) -> None:
        """Run a check; an exception is a failure too."""
        name = f"{section}.{function.__name__}"
        try:
            results = function(setting)
        except Exception:
            traceback.print_exc()
            self.failed.append(f"{name} (an error)")
            return
        for one in results:
            self.checks.append({"section": section, "passed": one.passed, **vars(one)})
            if not one.passed:
                self.failed.append(f"{name}: {one.what}, {one.found:.1e} > {one.allowed:.1e}")
        if not results:
            self.failed.append(f"{name} compared nothing")

    def time(self, section: str, function, setting) -> None:
        """Run a timing; an exception costs this section only, and the exit code."""
        begin = time.monotonic()
        try:
            rows = function(setting)
        except Exception:
            traceback.print_exc()
            self.failed.append(f"{section}.{function.__name__} at {setting.shape} (an error)")
            setting.release()
            return
        for row in rows:
            self.timings.append({"section": section, "shape": setting.shape, **vars(row)})
        self.rates[setting.shape] = {
            "matrix_rate": setting.matrix_rate,
            "bandwidth": setting.bandwidth,
        }
        spent = time.monotonic() - begin
        print(f"{setting.shape}, {section}.{function.__name__}: {spent:.0f} s", file=sys.stderr)

    def write(self) -> None:
        """Write both files."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        given = {key: value for key, value in vars(self.given).items() if key != "results"}
        kept = {"machine": self._machine(), "settings": given, "load": self.load}
        kept |= {"checks": self.checks, "timings": self.timings, "rates": self.rates}
        kept |= {"failed": self.failed, "dropped": self.dropped}
        text = json.dumps(kept, indent=1)
        self.path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        self.path.write_text(self._text(), encoding="utf-8")

    def _text(self) -> str:
        lines = ["### GPU" if self.given.device != "cpu" else "### GPU script on a CPU", ""]
        lines += [f"{len(self.checks)} checks, {len(self.failed)} failed.", ""]
        lines += ["| checked | difference | allowed |", "|---|---|---|"]
        for one in self.checks:
            cells = (f"{one['section']}: {one['what']}", f"{one['found']:.1e}")
            lines.append("| " + " | ".join((*cells, f"{one['allowed']:.1e}")) + " |")
        for shape in self.given.shape:
            mine = [row for row in self.timings if row["shape"] == shape]
            if not mine:
                continue
            lines += ["", f"#### {shape}, {self.given.dtype}", ""]
            lines += ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
            lines += [self._line(row) for row in mine]
            notes = [f"{row['what']}: {row['note']}" for row in mine if row["note"]]
            lines += ["", *(f"- {note}" for note in notes)]
        lines += ["", f"{self.given.tokens} tokens in rows of {self.given.length}."]
        if self.dropped:
            lines += ["", f"Left out for lack of time: {', '.join(self.dropped)}."]
        if self.failed:
            lines += ["", f"Failed: {'; '.join(self.failed)}."]
        lines += ["", f"({self._machine()}; load average at the start {self.load:.1f})", ""]
        return "\n".join(lines)

    def _line(self, row: dict) -> str:
        seconds = median(row["seconds"])
        cells = [f"{row['section']}: {row['what']}", f"{seconds * 1000:.3f}"]
        ratios = row["ratios"]
        cells += [f"{median(ratios):.3f}", f"{min(ratios):.3f}-{max(ratios):.3f}"] if ratios else []
        cells += [""] * (4 - len(cells)) + [row["goal"]]
        rate = self.rates[row["shape"]]["matrix_rate"]
        if row["flops"]:
            achieved = row["flops"] / seconds
            cells += [f"{achieved / 1e12:.3g}", f"{achieved / rate:.0%}" if rate else ""]
        cells += [""] * (7 - len(cells))
        cells += [f"{row['moved'] / seconds / 1e9:.3g}" if row["moved"] else ""]
        cells += [f"{row['floor'] * 1000:.3f}" if row["floor"] else ""]
        return "| " + " | ".join(cells) + " |"

    def _machine(self) -> str:
        import torch

        text = machine()
        if self.given.device != "cpu":
            about = torch.cuda.get_device_properties(0)
            text += f", CUDA {torch.version.cuda}, {about.total_memory / 2**30:.0f} GiB"
            text += f", {about.multi_processor_count} multiprocessors"
        from importlib import metadata

        for package in ("triton", "peft", "bitsandbytes"):
            try:
                text += f", {package} {metadata.version(package)}"
            except metadata.PackageNotFoundError:
                text += f", no {package}"
        return text


if __name__ == "__main__":
    sys.exit(main())
