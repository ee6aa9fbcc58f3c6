"""Train from scratch, or reuse a pretrained network? headstart answers, for any image-classification data set."""

from headstart.version import __version__

__all__ = ["__version__"]
