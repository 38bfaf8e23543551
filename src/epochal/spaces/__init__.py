"""How a batch is shaped: vectors, images of any axis order, labels, sequences, several of these.

The names and meanings are those of Pylearn2's spaces; batches are NumPy arrays (or SciPy's sparse
ones, or `epochal.ragged.Ragged`), and nothing is symbolic.
"""

from epochal.spaces.composite import CompositeSpace
from epochal.spaces.dense import Conv2DSpace, IndexSpace, VectorSpace
from epochal.spaces.sequences import IndexSequenceSpace, VectorSequenceSpace
from epochal.spaces.space import Space
from epochal.spaces.specs import DataSpecs, flat, nested

__all__ = [
    "CompositeSpace",
    "Conv2DSpace",
    "DataSpecs",
    "IndexSequenceSpace",
    "IndexSpace",
    "Space",
    "VectorSequenceSpace",
    "VectorSpace",
    "flat",
    "nested",
]
