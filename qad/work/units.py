"""Names of units of work, as a person types them and as failures print them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Pixel:
    """One healpix of a survey and program: the unit of fetch and extract."""

    survey: str
    program: str
    healpix: int

    @property
    def name(self) -> str:
        """``survey-program-healpix``, the way DESI names its files."""
        return f"{self.survey}-{self.program}-{self.healpix}"

    def __str__(self) -> str:
        return f"{self.survey}/{self.program}/{self.healpix}"
