"""What a catalogue made from these data has to cite and to thank."""

from __future__ import annotations

from collections.abc import Iterable

DATA = (
    ("DESI Data Release 1", "DESI Collaboration (2025), arXiv:2503.14745"),
    ("the instrument", "DESI Collaboration (2022), AJ 164, 207, arXiv:2205.10939"),
    ("the spectroscopic pipeline", "Guy et al. (2023), AJ 165, 144, arXiv:2209.14482"),
    (
        "redrock",
        "https://github.com/desihub/redrock; quasar templates: Brodzeller et al. (2023), AJ 166, 66, arXiv:2305.10426",
    ),
    ("quasar targets", "Chaussidon et al. (2023), ApJ 944, 107, arXiv:2208.08511"),
    ("photometry: Legacy Surveys", "Dey et al. (2019), AJ 157, 168, arXiv:1804.08657"),
    (
        "Galactic reddening",
        "Schlegel, Finkbeiner & Davis (1998), ApJ 500, 525; Schlafly & Finkbeiner (2011), ApJ 737, 103",
    ),
)
"""What, and the papers."""
CATALOGUES = {
    "gaia": "Gaia Collaboration, Vallenari et al. (2023), A&A 674, A1",
    "catwise": "Marocco et al. (2021), ApJS 253, 8",
    "allwise": "Wright et al. (2010), AJ 140, 1868; Cutri et al. (2013), VizieR II/328",
    "milliquas": "Flesch (2023), Open Journal of Astrophysics 6, 49",
    "first": "Helfand, White & Becker (2015), ApJ 801, 26",
    "vlass": "Gordon et al. (2021), ApJS 255, 30",
    "lotss": "Shimwell et al. (2022), A&A 659, A1",
    "erass": "Merloni et al. (2024), A&A 682, A34",
    "4xmm": "Webb et al. (2020), A&A 641, A136",
    "csc": "Evans et al. (2010), ApJS 189, 37",
    "dr16q": "Lyke et al. (2020), ApJS 250, 8",
    "simbad": "Wenger et al. (2000), A&AS 143, 9",
}
"""By what the catalogue's name holds."""

ACKNOWLEDGEMENT = (
    "This research used data obtained with the Dark Energy Spectroscopic Instrument (DESI). DESI construction and operations "
    "is managed by the Lawrence Berkeley National Laboratory. This material is based upon work supported by the U.S. "
    "Department of Energy, Office of Science, Office of High-Energy Physics, under Contract No. DE-AC02-05CH11231, and by the "
    "National Energy Research Scientific Computing Center, a DOE Office of Science User Facility under the same contract. "
    "Additional support for DESI was provided by the U.S. National Science Foundation (NSF), Division of Astronomical Sciences "
    "under Contract No. AST-0950945 to the NSF's National Optical-Infrared Astronomy Research Laboratory; the Science and "
    "Technology Facilities Council of the United Kingdom; the Gordon and Betty Moore Foundation; the Heising-Simons "
    "Foundation; the French Alternative Energies and Atomic Energy Commission (CEA); the National Council of Humanities, "
    "Science and Technology of Mexico (CONAHCYT); the Ministry of Science and Innovation of Spain (MICINN), and by the DESI "
    "Member Institutions: www.desi.lbl.gov/collaborating-institutions. The DESI collaboration is honored to be permitted to "
    "conduct scientific research on I'oligam Du'ag (Kitt Peak), a mountain with particular significance to the Tohono O'odham "
    "Nation. Any opinions, findings, and conclusions or recommendations expressed in this material are those of the author(s) "
    "and do not necessarily reflect the views of the U.S. National Science Foundation, the U.S. Department of Energy, or any "
    "of the listed funding agencies."
)
"""The text that DESI asks users of its public data to carry; the current one: https://data.desi.lbl.gov/doc/acknowledgments/"""

LICENSE = """The tables, spectra and figures in this folder are licensed under the Creative Commons Attribution 4.0 International licence
(CC BY 4.0): https://creativecommons.org/licenses/by/4.0/

You may share and adapt them for any purpose if you give credit to this catalogue and to DESI, whose Data Release 1 is
itself licensed under CC BY 4.0, and say what you changed.  The spectra were changed here: rows were selected and the three
cameras merged by inverse variance.  README.md holds what to cite and the acknowledgement.

SPDX-License-Identifier: CC-BY-4.0
"""


def catalogue_citation(name: str) -> str:
    """Return what to cite for a matched catalogue."""
    low = name.lower().replace("_", "").replace("-", "")
    found = next((text for key, text in CATALOGUES.items() if key in low), "")
    return found or "as its own documentation asks"


def citation_lines(catalogues: Iterable[str]) -> list[str]:
    """Return the list of what to cite, Markdown."""
    lines = [f"* {what}: {papers}" for what, papers in DATA]
    return lines + [f"* matched catalogue `{name}`: {catalogue_citation(name)}" for name in catalogues]
