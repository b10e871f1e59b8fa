"""Damaged coadd and redrock files, thousands of them, each with what must become of it.

``draw(name, seed, pair)`` makes one, ``Judge`` extracts it and says whether that came of it which must.
"""

from mutating import headers, structure, tiles, values
from mutating.expect import Expect, Mutant, Pair
from mutating.judge import MAX_RISE, MAX_SECONDS, Judge, Verdict
from mutating.registry import MUTATIONS, draw
from mutating.sources import pairs_below, simulated_pairs, tiled_pair

__all__ = [
    "MAX_RISE",
    "MAX_SECONDS",
    "MUTATIONS",
    "Expect",
    "Judge",
    "Mutant",
    "Pair",
    "Verdict",
    "draw",
    "headers",
    "pairs_below",
    "simulated_pairs",
    "structure",
    "tiled_pair",
    "tiles",
    "values",
]
