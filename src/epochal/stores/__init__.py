"""Files and arrays as stores of named sources.

A format is one module, and one row of `FORMATS`: what its files begin with, and which class opens
them.
"""

from epochal.stores.sniff import Format, open_store, register
from epochal.stores.store import Other, Source, Store

__all__ = ["Format", "Other", "Source", "Store", "open_store", "register"]
