"""Linear algebra in place, by LAPACK and BLAS through SciPy: what is symmetric is kept as its upper
triangle, in Fortran's order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.linalg.blas import dsyr, dsyrk

__all__ = ["add_outer", "add_products", "eigen", "mirror", "orthonormal"]

Numbers = NDArray[np.float64]
MIRROR_ROWS = 512


def add_products(products: Numbers, rows: Numbers) -> None:
    """``products += rows.T @ rows``, in place: half the multiplications of a general product."""
    made = dsyrk(1.0, rows.T, beta=1.0, c=products, overwrite_c=True)
    if made is not products:
        products[...] = made


def add_outer(products: Numbers, vector: Numbers, weight: float) -> None:
    """``products += weight * outer(vector, vector)``, in place."""
    made = dsyr(weight, vector, a=products, overwrite_a=True)
    if made is not products:
        products[...] = made


def mirror(matrix: Numbers) -> None:
    """Copy the upper triangle to the lower one, in place."""
    for at in range(0, len(matrix), MIRROR_ROWS):
        stop = min(at + MIRROR_ROWS, len(matrix))
        matrix[at:stop, :at] = matrix[:at, at:stop].T
        square = matrix[at:stop, at:stop]
        square[...] = np.triu(square) + np.triu(square, 1).T


def eigen(matrix: Numbers) -> tuple[Numbers, Numbers]:
    """Eigenvalues ``(d,)``, the largest first, and eigenvectors as rows ``(d, d)``, of a symmetric
    matrix, which is overwritten. Each vector's largest number is positive, so that the same
    covariance gives the same vectors.
    """
    values, vectors = eigh(matrix, lower=False, overwrite_a=True, check_finite=False, driver="evd")
    values, rows = values[::-1], vectors.T[::-1]
    largest = np.argmax(np.abs(rows), axis=1)
    signs = np.sign(rows[np.arange(len(rows)), largest])
    rows *= np.where(signs == 0, 1.0, signs)[:, None]
    return np.maximum(values, 0.0), rows


def orthonormal(vectors: Numbers) -> Numbers:
    """An orthonormal basis ``(d, k)`` of what columns ``(d, k)`` span."""
    basis: Numbers = np.linalg.qr(vectors)[0]
    return basis
