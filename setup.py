"""Put a copy of the workflow and its configurations into the wheel, as langneurons/project."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PARTS = ("Snakefile", "config", "environment.yml", "profiles", "workflow")


class BuildWithProject(build_py):
    """Build the package; of an editable one the files lie beside `src` already."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "langneurons", "project")
        shutil.rmtree(target, ignore_errors=True)
        for name in PARTS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)


setup(cmdclass={"build_py": BuildWithProject})
