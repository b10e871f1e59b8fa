"""The texts of a deposit: README, citation file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from qad.publishing.citations import ACKNOWLEDGEMENT, citation_lines
from qad.publishing.columns import FieldInfo

FILES = {
    "candidates.fits": "the catalogue: binary table with units (TUNIT), UCDs (TUCD) and descriptions (TCOMM)",
    "candidates.vot": "both tables as VOTable 1.4",
    "candidates.ecsv": "the catalogue as text with types and units (astropy: `Table.read`)",
    "candidates.parquet": "the catalogue as Parquet; unit, UCD and description in each field's metadata",
    "measures.fits": "lines, continuum, absorption and other redshifts, a row a candidate",
    "measures.ecsv": "the same as text",
    "measures.parquet": "the same as Parquet",
    "cds/ReadMe": "byte-by-byte description for the CDS and the AAS journals",
    "cds/candidates.dat": "the catalogue, aligned text",
    "cds/measures.dat": "the measurements, aligned text",
    "spectra.fits": "the spectra: OBJECTS, WAVELENGTH, FLUX and IVAR, a row a candidate",
    "figures/scores.png": "distribution of the scores (also .pdf)",
    "figures/coverage.png": "redshift and magnitude (also .pdf)",
    "figures/completeness.png": "share of planted anomalies found, from `qad evaluate` (also .pdf)",
    "figures/top20.png": "spectra of the first candidates (also .pdf)",
    "provenance.json": "inputs with hashes, settings, versions, counts",
    "CITATION.cff": "how to cite this catalogue",
    "LICENSE": "CC BY 4.0",
    "SHA256SUMS": "checksums: `sha256sum -c SHA256SUMS`",
}
"""What each file is; those that are not there are left out of the README."""


def abstract(provenance: Mapping[str, Any]) -> str:
    """Return what the catalogue is, in a paragraph."""
    counts = provenance["counts"]
    release = provenance["release"] or "a DESI release"
    return (
        f"{counts['published']:,} candidates for anomalous quasars among {counts['scored']:,} spectra of {release} that redrock "
        "classed as quasars. Each was ranked by how far it departs, for its redshift and signal-to-noise, from what a model of "
        "normal quasars expects: coherent residuals, rarity in the model's latent space, and line strengths."
    )


def selection(provenance: Mapping[str, Any]) -> list[str]:
    """Return the selection, one line each."""
    settings = provenance["selection"]
    lines = [f"scores of the model `{settings['name']}`, by rank"]
    lines += [f"the first {settings['top']:,} of what follows"] if settings["top"] else []
    lines += [f"artefact probability at most {settings['artefact_max']:g}"] if settings["artefact_max"] < 1 else []
    lines += [f"`{settings['where']}`"] if settings["where"] else []
    lines += [f"labelled {', '.join(settings['labels'])}"] if settings["labels"] else []
    return lines


def readme(
    provenance: Mapping[str, Any],
    columns: Mapping[str, Sequence[FieldInfo]],
    files: Sequence[str],
    catalogues: Sequence[str],
) -> str:
    """Return README.md."""
    settings = provenance["selection"]
    lines = [f"# {settings['title']}", "", f"Version {settings['version']}, {provenance['date']}.", ""]
    lines += [f"By {'; '.join(settings['authors'])}.", ""] if settings["authors"] else []
    lines += [abstract(provenance), "", "## Files", "", "| file | what |", "| --- | --- |"]
    lines += [f"| `{name}` | {what} |" for name, what in FILES.items() if name in files]
    lines += ["", "Flux and errors are those of the coadds. A TARGETID has up to 18 digits: read it as a 64-bit integer, never as a", "floating-point number. A spectrum is identified by TARGETID, survey, program and healpix together.", ""]  # fmt: skip
    lines += ["## Selection", "", *(f"* {line}" for line in selection(provenance)), ""]
    lines += ["`p_value` is the share of normal spectra of like S/N and redshift expected to score as high; `artefact` the probability-like", "score of an instrumental fault. A rank is no discovery: look at the spectrum.", ""]  # fmt: skip
    if "figures/completeness.png" in files:
        lines += ["`figures/completeness.png` shows which share of planted anomalies this ranking finds: what is absent from the catalogue", "may still exist.", ""]  # fmt: skip
    for table, entries in columns.items():
        lines += [f"## Columns of `{table}`", "", "| column | unit | UCD | description |", "| --- | --- | --- | --- |"]
        lines += [f"| `{e.name}` | {e.unit} | {e.ucd} | {_cell(e.description)} |" for e in entries]
        lines += [""]
    if "measures" in columns:
        lines += ["Line fluxes and the continuum are corrected for Galactic dust. Lines of a complex are fitted together with their local", "continuum and, where there is some, iron; errors include those of the profile's shape and of the continuum. Widths are", "freed of the instrument's. Missing: not covered, or (FWHM, shift) not significant; then `*_ew_limit` is a 3 sigma limit.", ""]  # fmt: skip
    lines += ["## Provenance", "", "| | |", "| --- | --- |"]
    lines += [
        f"| release | {provenance['release'] or 'not told'} ({provenance['specprod'] or 'production not told'}) |"
    ]
    lines += [f"| {name} | {version} |" for name, version in provenance["versions"].items()]
    lines += [f"| input `{entry['name']}` | sha256 `{entry['sha256']}` |" for entry in provenance["inputs"]]
    lines += ["", "`provenance.json` holds all settings.", "", "## To cite", "", *citation_lines(catalogues), ""]
    lines += ["## Acknowledgement", "", ACKNOWLEDGEMENT, "", "Check the current wording: https://data.desi.lbl.gov/doc/acknowledgments/", "", "## Licence", "", "CC BY 4.0, see LICENSE."]  # fmt: skip
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def citation_cff(provenance: Mapping[str, Any]) -> str:
    """Return CITATION.cff (format 1.2.0) of the data set."""
    settings = provenance["selection"]
    lines = [
        "cff-version: 1.2.0",
        "message: If you use this catalogue, please cite it, DESI Data Release 1 and the papers that README.md names.",
        "type: dataset",
        f"title: {json.dumps(settings['title'])}",
        f"version: {json.dumps(settings['version'])}",
        f"date-released: {provenance['date']}",
        "license: CC-BY-4.0",
        f"abstract: {json.dumps(abstract(provenance))}",
        "authors:",
    ]
    for author in settings["authors"]:
        family, _, given = (part.strip() for part in author.partition(","))
        lines += [
            f"  - family-names: {json.dumps(family)}",
            *([f"    given-names: {json.dumps(given)}"] if given else []),
        ]
    lines += [] if settings["authors"] else ["  - name: to be filled in"]
    lines += [
        "keywords: [quasars, spectroscopy, anomaly detection, DESI]",
        "references:",
        "  - type: article",
        "    title: Data Release 1 of the Dark Energy Spectroscopic Instrument",
        "    authors:",
        "      - name: DESI Collaboration",
        "    year: 2025",
        "    url: https://arxiv.org/abs/2503.14745",
        "  - type: software",
        '    title: "qad: anomalous quasars in the Dark Energy Spectroscopic Instrument\'s spectra"',
        "    authors:",
        "      - name: The qad developers",
        f"    version: {provenance['versions']['qad']}",
    ]
    return "\n".join(lines) + "\n"
