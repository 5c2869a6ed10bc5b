"""Configurations: their definition, their checks, how they are read."""

from langneurons.base.errors import ConfigError
from langneurons.config.config import BASELINE, Config, set_directory
from langneurons.config.load import build, load_config, parse_yaml, project_file, read_configs

__all__ = [
    "BASELINE",
    "Config",
    "ConfigError",
    "build",
    "load_config",
    "parse_yaml",
    "project_file",
    "read_configs",
    "set_directory",
]
