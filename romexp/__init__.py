"""romexp: locate and edit factual associations in language models."""

__version__ = "0.1.0"
