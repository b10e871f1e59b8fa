"""Emission and absorption lines of quasars, and the regions that attribute a residual to them.

Rest wavelengths are vacuum, Å: the line lists of fastspecfit (``emlines.ecsv``) and PyQSOFit.  Equivalent widths are
those of the composite of Vanden Berk et al. (2001), rounded; they order the lines by strength and start fits.
"""

from __future__ import annotations

from dataclasses import dataclass

LYA = 1215.67
"""Lyman alpha, Å."""
LIGHT_SPEED_KMS = 299_792.458


@dataclass(frozen=True)
class Line:
    """A line or blend.

    Attributes
    ----------
    name : str
    wave : float
        Rest wavelength of the line, or of the strongest member of the blend, Å.
    ew : float
        Typical rest equivalent width, Å.
    low, high : float
        The region that belongs to it, Å.
    broad : bool
        Whether it arises in the broad-line region.
    """

    name: str
    wave: float
    ew: float
    low: float
    high: float
    broad: bool = True

    @property
    def short(self) -> str:
        """The name without spaces, for columns and keys."""
        return self.name.lower().replace(" ", "").replace("[", "").replace("]", "").replace("+", "_")


EMISSION_LINES = (
    Line("O VI", 1033.82, 10.0, 1000.0, 1060.0),
    Line("Lya", 1215.67, 93.0, 1190.0, 1265.0),
    Line("N V", 1240.14, 18.0, 1228.0, 1265.0),
    Line("O I", 1304.35, 1.7, 1285.0, 1320.0),
    Line("C II", 1335.31, 0.7, 1320.0, 1350.0),
    Line("Si IV", 1396.76, 8.0, 1360.0, 1430.0),
    Line("N IV]", 1486.50, 0.5, 1465.0, 1500.0),
    Line("C IV", 1549.06, 24.0, 1500.0, 1585.0),
    Line("He II 1640", 1640.42, 1.0, 1600.0, 1690.0),
    Line("N III]", 1750.26, 0.4, 1725.0, 1775.0),
    Line("C III]", 1908.73, 21.0, 1820.0, 1960.0),
    Line("Fe III", 2077.0, 2.0, 2030.0, 2120.0),
    Line("Fe II UV", 2425.0, 45.0, 2200.0, 2650.0),
    Line("Mg II", 2798.75, 32.0, 2720.0, 2880.0),
    Line("[Ne V]", 3426.85, 1.0, 3330.0, 3460.0, False),
    Line("[O II]", 3728.48, 1.6, 3700.0, 3760.0, False),
    Line("[Ne III]", 3869.86, 1.4, 3850.0, 3890.0, False),
    Line("Hdelta", 4102.89, 5.0, 4060.0, 4140.0),
    Line("Hgamma", 4341.69, 13.0, 4280.0, 4400.0),
    Line("Fe II blue", 4560.0, 20.0, 4434.0, 4684.0),
    Line("Hbeta", 4862.71, 46.0, 4780.0, 4935.0),
    Line("[O III]", 5008.24, 13.0, 4940.0, 5040.0, False),
    Line("Fe II red", 5300.0, 15.0, 5100.0, 5500.0),
    Line("He I", 5877.25, 5.0, 5830.0, 5930.0),
    Line("[O I]", 6302.05, 1.0, 6270.0, 6380.0, False),
    Line("Halpha", 6564.60, 195.0, 6400.0, 6800.0),
)
"""Emission lines and blends, by wavelength."""


def nearest_line(wave_rest: float) -> Line | None:
    """Return the line whose region holds a rest wavelength (Å), the strongest where regions overlap, else None."""
    inside = [line for line in EMISSION_LINES if line.low <= wave_rest <= line.high]
    return max(inside, key=lambda line: line.ew, default=None)
