"""What `epochal.convert` reads that is no store: tables, folders of images, MATLAB's files."""

from epochal.converting.inputs.open import open_input
from epochal.converting.inputs.source import Input, InputSource

__all__ = ["Input", "InputSource", "open_input"]
