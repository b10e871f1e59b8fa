"""The tables of DESI's coadd and redrock files: column names, FITS formats and units, as facts.

They are those of the healpix files of DR1 (production iron, desispec 0.56.5): the coadd of tile 80613 gives formats and
order, the data model's pages of ``coadd-*.fits`` and ``redrock-*.fits`` (desidatamodel) the columns of healpix files.
"""

from __future__ import annotations

from typing import NamedTuple

NDIAG = 11
"""Diagonals of the resolution matrix (desispec.resolution)."""
FLUX_BUNIT = "10**-17 erg/(s cm2 Angstrom)"
IVAR_BUNIT = "10**+34 (s2 cm4 Angstrom2) / erg2"
WAVE_BUNIT = "Angstrom"
CAMERA_START = {"b": 3600.0, "r": 5760.0, "z": 7520.0}
"""First wavelength of each camera, Å; the step is 0.8 Å (desidatamodel, coadd)."""
CAMERA_PIXELS = {"b": 2751, "r": 2326, "z": 2881}
CAMERA_FIRST = {"b": 0, "r": 2700, "z": 4900}
"""Pixel of the merged grid (3600 Å + 0.8 Å k) at which each camera begins."""


class TableColumn(NamedTuple):
    """A column of a FITS table: its name, TFORM and TUNIT (empty: none)."""

    name: str
    format: str
    unit: str = ""


def _columns(text: str) -> tuple[TableColumn, ...]:
    return tuple(TableColumn(*line.strip().split(" ", 2)) for line in text.strip().splitlines())


FIBERMAP = _columns("""
TARGETID K
COADD_FIBERSTATUS J
TARGET_RA D deg
TARGET_DEC D deg
PMRA E mas yr^-1
PMDEC E mas yr^-1
REF_EPOCH E yr
FA_TARGET K
FA_TYPE B
OBJTYPE 3A
SUBPRIORITY D
OBSCONDITIONS J
RELEASE I
BRICKNAME 8A
BRICKID J
BRICK_OBJID J
MORPHTYPE 4A
EBV E mag
FLUX_G E nanomaggy
FLUX_R E nanomaggy
FLUX_Z E nanomaggy
FLUX_W1 E nanomaggy
FLUX_W2 E nanomaggy
FLUX_IVAR_G E nanomaggy^-2
FLUX_IVAR_R E nanomaggy^-2
FLUX_IVAR_Z E nanomaggy^-2
FLUX_IVAR_W1 E nanomaggy^-2
FLUX_IVAR_W2 E nanomaggy^-2
FIBERFLUX_G E nanomaggy
FIBERFLUX_R E nanomaggy
FIBERFLUX_Z E nanomaggy
FIBERTOTFLUX_G E nanomaggy
FIBERTOTFLUX_R E nanomaggy
FIBERTOTFLUX_Z E nanomaggy
MASKBITS I
SERSIC E
SHAPE_R E arcsec
SHAPE_E1 E
SHAPE_E2 E
REF_ID K
REF_CAT 2A
GAIA_PHOT_G_MEAN_MAG E mag
GAIA_PHOT_BP_MEAN_MAG E mag
GAIA_PHOT_RP_MEAN_MAG E mag
PARALLAX E mas
PHOTSYS 1A
PRIORITY_INIT K
NUMOBS_INIT K
DESI_TARGET K
BGS_TARGET K
MWS_TARGET K
SCND_TARGET K
PLATE_RA D deg
PLATE_DEC D deg
COADD_NUMEXP I
COADD_EXPTIME E s
COADD_NUMNIGHT I
COADD_NUMTILE I
MEAN_DELTA_X E mm
RMS_DELTA_X E mm
MEAN_DELTA_Y E mm
RMS_DELTA_Y E mm
MEAN_FIBER_RA D deg
STD_FIBER_RA E arcsec
MEAN_FIBER_DEC D deg
STD_FIBER_DEC E arcsec
MEAN_PSF_TO_FIBER_SPECFLUX E
""")
"""One row per target."""

_SV_TARGETS = ("DESI", "BGS", "MWS", "SCND")
TILEPIX = _columns("""
TILEID J
SURVEY 7A
PROGRAM 6A
PETAL_LOC I
HEALPIX J
""")
"""``healpix/tilepix.fits``: which pixels a tile's petals touch (desidatamodel, tilepix.rst)."""


def fibermap_columns(survey: str) -> tuple[TableColumn, ...]:
    """Return the columns of FIBERMAP in the healpix files of a survey: sv1 to sv3 carry their own targeting bits."""
    if not survey.startswith("sv"):
        return FIBERMAP
    columns = [column for column in FIBERMAP if column.name != "SCND_TARGET"]
    place = [column.name for column in columns].index("DESI_TARGET")
    own = [TableColumn(f"{survey.upper()}_{kind}_TARGET", "K") for kind in _SV_TARGETS]
    return (*columns[:place], *own, *columns[place:])


EXP_FIBERMAP = _columns("""
TARGETID K
PRIORITY J
SUBPRIORITY D
NIGHT J
EXPID J
MJD D
TILEID J
EXPTIME D s
PETAL_LOC I
DEVICE_LOC J
LOCATION K
FIBER J
FIBERSTATUS J
FIBERASSIGN_X E mm
FIBERASSIGN_Y E mm
LAMBDA_REF E Angstrom
PLATE_RA D deg
PLATE_DEC D deg
NUM_ITER K
FIBER_X D mm
FIBER_Y D mm
DELTA_X D mm
DELTA_Y D mm
FIBER_RA D deg
FIBER_DEC D deg
PSF_TO_FIBER_SPECFLUX D
""")
"""One row per target and exposure."""

TSNR2_KINDS = ("GPBDARK", "ELG", "GPBBRIGHT", "LYA", "BGS", "GPBBACKUP", "QSO", "LRG")
"""Target classes for which a template signal-to-noise squared is given."""
_TSNR2 = tuple(TableColumn(f"TSNR2_{kind}{camera}", "E") for camera in ("_B", "_R", "_Z", "") for kind in TSNR2_KINDS)
_COADD_SCORES = tuple(
    TableColumn(f"{what}_COADD_{quantity}_{camera}", "E")
    for camera in "BRZ"
    for what, quantity in (("INTEG", "FLUX"), ("MEDIAN", "FLUX"), ("MEDIAN", "SNR"))
)
_TARGETID = TableColumn("TARGETID", "K")

SCORES = (_TARGETID, *_COADD_SCORES, *_TSNR2)
TSNR2 = (_TARGETID, *_TSNR2)

REDSHIFTS = _columns("""
TARGETID K
Z D
ZERR D
ZWARN K
CHI2 D
COEFF 10D
NPIXELS K
SPECTYPE 6A
SUBTYPE 20A
NCOEFF K
DELTACHI2 D
""")

REDROCK_TNULL = {"K": 999999, "J": 999999, "I": 16959, "B": 63}
"""TNULL that redrock's writer puts on integer columns of each format."""
