"""Check configurations; keep the files that follow from their definition in step.

python -m langneurons.config FILE ...     check, and say what a run holds
python -m langneurons.config --write      write schema, commented reference, reference page
python -m langneurons.config --check      fail if one of these is out of date
"""

import argparse
import sys
from pathlib import Path

from langneurons.base.errors import ConfigError
from langneurons.config.load import read_configs
from langneurons.config.reference import files
from langneurons.jobs.evidence import thin_evidence
from langneurons.jobs.files import check_files
from langneurons.jobs.sizes import tight_memory


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m langneurons.config", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", nargs="*", help="configuration files, merged in order")
    parser.add_argument("--write", action="store_true", help="write the generated files")
    parser.add_argument("--check", action="store_true", help="compare the generated files")
    given = parser.parse_args(arguments)
    if given.file:
        return _summary(given.file)
    if not (given.write or given.check):
        parser.error("name a file, or --write or --check")
    stale = []
    for path, content in files().items():
        if not Path(path).parent.is_dir():
            parser.error(f"run this in the root of the repository: there is no {path}")
        current = Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""
        if current != content:
            stale.append(path)
            if given.write:
                Path(path).write_text(content, encoding="utf-8")
    if given.write:
        print("written:", ", ".join(stale) or "nothing, all in step")
        return 0
    if stale:
        print(f"out of date: {', '.join(stale)}; run python -m langneurons.config --write")
    return int(bool(stale))


def _summary(paths: list[str]) -> int:
    try:
        config = read_configs(paths)
        check_files(config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    for model in config.models:
        langs = config.model_languages(model)
        cells = config.perplexity_cells(model)
        print(
            f"{config.name}: {model}: {len(langs)} languages, {len(config.cells(model))} neuron"
            f" tables, {len(cells)} perplexity matrices, {len(config.tasks)} tasks"
        )
    for text in [*thin_evidence(config), *tight_memory(config)]:
        print(f"warning: {text}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
