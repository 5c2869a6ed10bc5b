"""Configurations: their definition, their checks, how they are read."""

from langneurons.config.load import build, load_config, parse_yaml, project_file, read_configs
from langneurons.config.root import BASELINE, Config, set_directory
from langneurons.errors import ConfigError

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
