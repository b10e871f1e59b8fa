"""Which lines are fitted together, where, and with what freedom.

Wavelengths are vacuum, rest frame, Å (fastspecfit's ``emlines.ecsv``, PyQSOFit's line table).  The ranges hold the windows
that PyQSOFit counts as free of lines; where its windows hold iron, a template of iron is fitted along.
"""

from __future__ import annotations

from dataclasses import dataclass

DOUBLET_RATIO = 2.98
"""[O III] 5008 over 4960, and [N II] 6585 over 6550 (Storey & Zeippen 2000, MNRAS 312, 813)."""


@dataclass(frozen=True)
class Kinematics:
    """A profile that lines share: one Gaussian, or a core and a wing.

    Each number is the centre of a Gaussian prior and its width: where the data say little the profile stays near what is
    usual, and the errors say so; where they say much the prior does not count.

    Attributes
    ----------
    shift : tuple of float
        km/s.
    fwhm : tuple of float
        Of the core, km/s, and its scatter in ln.
    core, ratio, offset : tuple of float
        With `is_double`: the core's share of the flux; how many times wider the wing is, with its scatter in ln; the
        wing's shift from the core in units of the core's sigma.
    """

    shift: tuple[float, float]
    fwhm: tuple[float, float]
    is_double: bool = False
    core: tuple[float, float] = (0.55, 0.2)
    ratio: tuple[float, float] = (2.5, 0.3)
    offset: tuple[float, float] = (0.0, 0.7)


@dataclass(frozen=True)
class FittedLine:
    """A line, or a blend of fixed ratios: its name in columns, kinematics (index in the complex) and members."""

    name: str
    wave: float
    kinematics: int
    members: tuple[tuple[float, float], ...] = ()
    """Wavelength and flux over that of the column; empty: the line itself."""
    is_reported: bool = True

    @property
    def parts(self) -> tuple[tuple[float, float], ...]:
        """The members, or the line as its own only one."""
        return self.members or ((self.wave, 1.0),)


@dataclass(frozen=True)
class Complex:
    """Lines fitted together with their local continuum.

    Attributes
    ----------
    ranges : tuple of (low, high)
        Rest Å that are fitted.
    iron : str
        ``uv``, ``optical`` or empty.
    bin_kms : float
        Pixels are averaged to at most this width.
    waves : int
        Smooth departures of the continuum from its form, each a per cent or so: see :data:`qad.analysis.fit.DEPARTURE`.
    clip : bool
        Whether narrow absorption is masked and the fit repeated.
    """

    name: str
    ranges: tuple[tuple[float, float], ...]
    kinematics: tuple[Kinematics, ...]
    lines: tuple[FittedLine, ...]
    iron: str = ""
    bin_kms: float = 150.0
    waves: int = 2
    clip: bool = True


_BROAD = Kinematics((-300.0, 1500.0), (3300.0, 0.5), True)
_LOW_IONISATION = Kinematics((0.0, 500.0), (3000.0, 0.5), True)
_WEAK = Kinematics((-300.0, 700.0), (4500.0, 0.4), True)
_MINOR = Kinematics((-100.0, 300.0), (2800.0, 0.35), True)
_OXYGEN = Kinematics((0.0, 200.0), (450.0, 0.45), True, (0.7, 0.2), (2.3, 0.25), (-1.5, 1.2))

COMPLEXES = (
    Complex(
        "lya",
        ((1216.0, 1290.0), (1318.0, 1328.0), (1343.0, 1362.0)),
        (_BROAD, _WEAK, _MINOR),
        (
            FittedLine("lya", 1215.67, 0),
            FittedLine("nv", 1240.14, 1),
            FittedLine("siii1262", 1262.59, 2, is_reported=False),
        ),
    ),
    Complex(
        "siiv",
        ((1275.0, 1470.0),),
        (Kinematics((-300.0, 1200.0), (3500.0, 0.4), True), _MINOR),
        (
            FittedLine("siiv_oiv", 1398.7, 0, ((1396.76, 0.634), (1402.06, 0.366))),
            FittedLine("oi1304", 1304.35, 1),
            FittedLine("cii1335", 1335.31, 1),
        ),
    ),
    Complex(
        "civ",
        ((1435.0, 1715.0),),
        (_BROAD, _WEAK, Kinematics((0.0, 500.0), (12_000.0, 0.15)), _MINOR),
        (
            FittedLine("civ", 1549.06, 0),
            FittedLine("heii1640", 1640.42, 1),
            FittedLine("oiii1663", 1663.48, 3),
            FittedLine("bump1600", 1600.0, 2, is_reported=False),
            FittedLine("niv1486", 1486.50, 3),
        ),
    ),
    Complex(
        "ciii",
        ((1690.0, 2200.0),),
        (_BROAD, _MINOR),
        (
            FittedLine("ciii", 1908.73, 0),
            FittedLine("aliii", 1857.40, 1),
            FittedLine("siiii", 1892.03, 1),
            FittedLine("niii1750", 1750.26, 1),
        ),
        iron="uv",
    ),
    Complex("mgii", ((2600.0, 3090.0),), (_LOW_IONISATION,), (FittedLine("mgii", 2798.75, 0),), iron="uv"),
    Complex(
        "nev",
        ((3300.0, 3480.0),),
        (_OXYGEN,),
        (FittedLine("nev3426", 3426.85, 0), FittedLine("nev3346", 3346.79, 0, is_reported=False)),
        bin_kms=75.0,
    ),
    Complex(
        "oii",
        ((3680.0, 3775.0),),
        (_OXYGEN,),
        (FittedLine("oii", 3728.48, 0, ((3727.10, 0.45), (3729.86, 0.55))),),
        bin_kms=75.0,
    ),
    Complex("neiii", ((3815.0, 3915.0),), (_OXYGEN,), (FittedLine("neiii3869", 3869.86, 0),), bin_kms=75.0),
    Complex("hdelta", ((4005.0, 4225.0),), (_LOW_IONISATION,), (FittedLine("hdelta", 4102.89, 0),)),
    Complex(
        "hgamma",
        ((4190.0, 4445.0),),
        (_LOW_IONISATION, _OXYGEN),
        (FittedLine("hgamma", 4341.69, 0), FittedLine("oiii4364", 4364.44, 1)),
        iron="optical",
    ),
    Complex(
        "hbeta",
        ((4435.0, 5535.0),),
        (_LOW_IONISATION, _OXYGEN, _WEAK),
        (
            FittedLine("hbeta", 4862.71, 0),
            FittedLine("oiii5008", 5008.24, 1, ((5008.24, 1.0), (4960.30, 1 / DOUBLET_RATIO))),
            FittedLine("hbeta_narrow", 4862.71, 1),
            FittedLine("heii4687", 4687.02, 2),
        ),
        iron="optical",
        bin_kms=75.0,
        waves=4,
        clip=False,
    ),
    Complex("hei", ((5700.0, 6050.0),), (_LOW_IONISATION,), (FittedLine("hei5877", 5877.25, 0),), clip=False),
    Complex(
        "halpha",
        ((6110.0, 7000.0),),
        (_LOW_IONISATION, _OXYGEN),
        (
            FittedLine("halpha", 6564.60, 0),
            FittedLine("halpha_narrow", 6564.60, 1),
            FittedLine("nii6585", 6585.27, 1, ((6585.27, 1.0), (6549.86, 1 / DOUBLET_RATIO))),
            FittedLine("sii6718", 6718.29, 1),
            FittedLine("sii6733", 6732.67, 1),
            FittedLine("oi6302", 6302.05, 1),
        ),
        bin_kms=75.0,
        waves=4,
        clip=False,
    ),
)
"""By wavelength."""

REPORTED_LINES = tuple(line for group in COMPLEXES for line in group.lines if line.is_reported)
"""The lines that have columns."""
