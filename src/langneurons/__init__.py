"""Find, test and train the language-specific neurons of multilingual language models."""

__version__ = "0.1.0"
