"""Configurations: their definition, their checks, how they are read."""

from langneurons.config.config import Config
from langneurons.config.load import build, load_config, read_configs

__all__ = ["Config", "build", "load_config", "read_configs"]
