"""What transforms learn from: stable sums; those of two parts of the data make those of the whole.

Means and sums of squares are kept about the mean, in float64, and merged pairwise: T. F. Chan,
G. H. Golub and R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances", 1979.
"""

from epochal.transforms.statistics.base import Statistics, Tally, tally_of
from epochal.transforms.statistics.covariance import Covariance, Sketch
from epochal.transforms.statistics.moments import Moments
from epochal.transforms.statistics.states import state_of, statistics_of

__all__ = [
    "Covariance",
    "Moments",
    "Sketch",
    "Statistics",
    "Tally",
    "state_of",
    "statistics_of",
    "tally_of",
]
