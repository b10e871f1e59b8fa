"""What a pair of files holds, told by a reader of its own."""

from __future__ import annotations

from mutating.expect import Pair
from mutating.fitsbytes import find, split


def quasars(pair: Pair) -> list[int]:
    """Return the TARGETIDs that come out of the pair as it is, in the order of the redrock file."""
    rows, fibers = find(split(pair.redrock), "REDSHIFTS"), find(split(pair.coadd), "FIBERMAP")
    good = (rows.column("SPECTYPE") == b"QSO") & (rows.column("ZWARN") == 0)
    fine = (fibers.column("OBJTYPE") == b"TGT") & ((fibers.column("COADD_FIBERSTATUS") & ~8) == 0)
    there = set(fibers.column("TARGETID")[fine].tolist())
    return [int(t) for t in rows.column("TARGETID")[good] if int(t) in there]
