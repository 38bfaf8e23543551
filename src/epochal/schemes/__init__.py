"""Which rows, in which order: names, the exact shuffle, shards."""

from epochal.schemes.philox import Keys, Stream
from epochal.schemes.registry import NAMES, make
from epochal.schemes.scheme import Scheme

__all__ = ["NAMES", "Keys", "Scheme", "Stream", "make"]
