"""What holds for all laws."""

import pytest

from epochal.execute import recycle, stream
from epochal.plan import spool


@pytest.fixture(autouse=True)
def constants(monkeypatch):
    """The memory of the smallest batch is used again, the smallest part of one is read into; and
    what a case says of long rows is undone after its test.
    """
    monkeypatch.setattr(recycle, "LEAST_BYTES", 1)
    monkeypatch.setattr(stream, "LEAST_PART_BYTES", 1)
    monkeypatch.setattr(spool, "LONG_BYTES", spool.LONG_BYTES)
