"""The catalogues that :mod:`~qad.matching.presets` knows.

Column names, units and epochs are those of each catalogue's own description, linked beside it; the names that VizieR
(tapvizier.cds.unistra.fr) and the CDS X-Match service use for the same columns follow them.  Radii are ours, from the errors
of the positions that the cited papers give.
"""

from __future__ import annotations

from qad.matching.presets import Known, Motion, Preset


def mjd_year(mjd: float) -> float:
    """Return the Julian year of a modified Julian date."""
    return 2000.0 + (mjd - 51544.5) / 365.25


_J2000 = ("ra", "raj2000", "ra_icrs"), ("dec", "dej2000", "de_icrs")
_MAS = "mas"
_FLUX = "erg s-1 cm-2"

GAIA_DR3 = Preset(
    "gaia_dr3",
    "Gaia Data Release 3, gaia_source",
    radius_arcsec=1.0,
    ra=("ra", "ra_icrs"),
    dec=("dec", "de_icrs"),
    id=("source_id", "source"),
    columns=(
        Known("parallax", _MAS, ("plx",), "parallax"),
        Known("parallax_error", _MAS, ("e_plx",), "standard error of parallax"),
        Known("pmra", "mas yr-1", (), "proper motion in right ascension, times cos(dec)"),
        Known("pmra_error", "mas yr-1", ("e_pmra",), "standard error of pmra"),
        Known("pmdec", "mas yr-1", ("pmde",), "proper motion in declination"),
        Known("pmdec_error", "mas yr-1", ("e_pmde",), "standard error of pmdec"),
        Known("pmra_pmdec_corr", "", ("pmrapmdecor",), "correlation of pmra and pmdec"),
        Known("phot_g_mean_mag", "mag", ("gmag",), "G, Vega"),
        Known("bp_rp", "mag", ("bp-rp",), "BP - RP, Vega"),
        Known("ruwe", "", (), "renormalised unit weight error"),
    ),
    bibcode="2023A&A...674A...1G",
    url="https://gea.esac.esa.int/archive/documentation/GDR3/Gaia_archive/chap_datamodel/",
    vizier="I/355/gaiadr3",
    tap_url="https://gea.esac.esa.int/tap-server/tap",
    tap_table="gaiadr3.gaia_source",
    epoch=2016.0,
    motion=Motion(("pmra",), ("pmdec", "pmde")),
    kind="astrometry",
)

ALLWISE = Preset(
    "allwise",
    "AllWISE Source Catalog",
    radius_arcsec=2.0,
    ra=_J2000[0],
    dec=_J2000[1],
    id=("designation", "allwise"),
    columns=(
        Known("w1mpro", "mag", ("w1mag",), "W1 (3.4 um), Vega"),
        Known("w1sigmpro", "mag", ("e_w1mag",), "its error; null: w1mpro is a 95 % upper limit of flux"),
        Known("w2mpro", "mag", ("w2mag",), "W2 (4.6 um), Vega"),
        Known("w2sigmpro", "mag", ("e_w2mag",), "its error; null: a limit"),
        Known("w3mpro", "mag", ("w3mag",), "W3 (12 um), Vega"),
        Known("w3sigmpro", "mag", ("e_w3mag",), "its error; null: a limit"),
        Known("w4mpro", "mag", ("w4mag",), "W4 (22 um), Vega"),
        Known("w4sigmpro", "mag", ("e_w4mag",), "its error; null: a limit"),
        Known("cc_flags", "", ("ccf",), "contamination and confusion, a character a band"),
    ),
    bibcode="2014yCat.2328....0C",
    url="https://wise2.ipac.caltech.edu/docs/release/allwise/expsup/sec2_1a.html",
    vizier="II/328/allwise",
    epoch=mjd_year(55400.0),
    kind="infrared",
    roles={
        "w1": "w1mpro",
        "w1_err": "w1sigmpro",
        "w2": "w2mpro",
        "w2_err": "w2sigmpro",
        "w3": "w3mpro",
        "w3_err": "w3sigmpro",
    },
)
"""The motions in AllWISE are apparent ones that noise dominates for faint sources: positions stay where they are."""

CATWISE2020 = Preset(
    "catwise2020",
    "CatWISE2020 Catalog",
    radius_arcsec=2.0,
    ra=("ra_pm", "rapmdeg", "ra_icrs", "ra", "radeg"),
    dec=("dec_pm", "depmdeg", "de_icrs", "dec", "dedeg"),
    id=("source_id", "source_name", "name"),
    columns=(
        Known("w1mpro_pm", "mag", ("w1mpropm",), "W1 of the fit with motion, Vega"),
        Known("w1sigmpro_pm", "mag", ("e_w1mpropm",), "its error"),
        Known("w2mpro_pm", "mag", ("w2mpropm",), "W2 of the fit with motion, Vega"),
        Known("w2sigmpro_pm", "mag", ("e_w2mpropm",), "its error"),
        Known("ab_flags", "", ("abf", "abfl"), "artefacts, a character a band"),
    ),
    bibcode="2021ApJS..253....8M",
    url="https://irsa.ipac.caltech.edu/data/WISE/CatWISE/gator_docs/catwise_colDescriptions.html",
    vizier="II/365/catwise",
    epoch=mjd_year(57170.0),
    kind="infrared",
    roles={"w1": "w1mpro_pm", "w1_err": "w1sigmpro_pm", "w2": "w2mpro_pm", "w2_err": "w2sigmpro_pm"},
)
"""Its epoch lies a tenth of a year from DESI's, and its motions have errors of tens of mas/yr: they are not applied."""

LEGACY_DR10 = Preset(
    "ls_dr10",
    "DESI Legacy Imaging Surveys DR10, Tractor",
    radius_arcsec=1.0,
    ra=("ra",),
    dec=("dec",),
    id=("ls_id", "objid"),
    columns=(
        Known("type", "", (), "morphology: PSF, REX, EXP, DEV, SER, DUP"),
        *(
            Known(f"flux_{band}", "nanomaggy", (), f"{band}, not corrected for dust")
            for band in ("g", "r", "i", "z", "w1", "w2")
        ),
        *(
            Known(f"flux_ivar_{band}", "nanomaggy-2", (), f"inverse variance of flux_{band}")
            for band in ("g", "r", "i", "z", "w1", "w2")
        ),
        Known("ebv", "mag", (), "Galactic E(B-V), Schlegel, Finkbeiner and Davis (1998)"),
        Known("ref_epoch", "yr", (), "epoch of a Gaia position; 0: none"),
    ),
    bibcode="2019AJ....157..168D",
    url="https://www.legacysurvey.org/dr10/catalogs/",
    tap_url="https://datalab.noirlab.edu/tap",
    tap_table="ls_dr10.tractor",
    motion=Motion(("pmra",), ("pmdec",), epoch_column="ref_epoch"),
    kind="imaging",
)

FIRST = Preset(
    "first",
    "FIRST, final catalogue 14dec17, 1.4 GHz",
    radius_arcsec=2.0,
    ra=_J2000[0],
    dec=_J2000[1],
    id=("first",),
    columns=(
        Known("fint", "mJy", (), "integrated flux density at 1.4 GHz"),
        Known("fpeak", "mJy", (), "peak flux density, per beam"),
        Known("rms", "mJy", (), "local noise, per beam"),
        Known("sideprob", "", ("p(s)", "p_s"), "probability of a sidelobe"),
    ),
    bibcode="2015ApJ...801...26H",
    url="https://cdsarc.cds.unistra.fr/viz-bin/ReadMe/VIII/92",
    vizier="VIII/92/first14",
    kind="radio",
    roles={"flux": "fint", "flux_err": "rms"},
    frequency_ghz=1.4,
)

VLASS = Preset(
    "vlass",
    "VLASS Quick Look epoch 1 components (CIRADA), 3 GHz",
    radius_arcsec=2.0,
    ra=_J2000[0],
    dec=_J2000[1],
    id=("component_name", "compname"),
    columns=(
        Known(
            "total_flux", "mJy", ("ftot",), "integrated flux density at 3 GHz; low by 10 to 15 % in Quick Look images"
        ),
        Known("e_total_flux", "mJy", ("e_ftot",), "its error"),
        Known("peak_flux", "mJy", ("fpeak",), "peak flux density, per beam"),
        Known("duplicate_flag", "", ("dupflag",), "0: unique; 1: the one to keep of duplicates; 2: drop it"),
        Known("quality_flag", "", ("qualflag",), "0 or 4: use it"),
    ),
    bibcode="2021ApJS..255...30G",
    url="https://cdsarc.cds.unistra.fr/viz-bin/ReadMe/J/ApJS/255/30",
    vizier="J/ApJS/255/30/comp",
    kind="radio",
    roles={"flux": "total_flux", "flux_err": "e_total_flux"},
    frequency_ghz=3.0,
)

LOTSS_DR2 = Preset(
    "lotss_dr2",
    "LOFAR Two-metre Sky Survey DR2, 144 MHz",
    radius_arcsec=3.0,
    ra=_J2000[0],
    dec=_J2000[1],
    id=("source_name", "source"),
    columns=(
        Known("total_flux", "mJy", ("speaktot", "stotal"), "integrated flux density at 144 MHz"),
        Known("e_total_flux", "mJy", ("e_speaktot", "e_stotal"), "its error"),
        Known("peak_flux", "mJy", ("speak",), "peak flux density, per beam"),
        Known("s_code", "", ("scode",), "S: single, C: one of several, M: several Gaussians"),
    ),
    bibcode="2022A&A...659A...1S",
    url="https://cdsarc.cds.unistra.fr/viz-bin/ReadMe/J/A+A/659/A1",
    vizier="J/A+A/659/A1/catalog",
    kind="radio",
    roles={"flux": "total_flux", "flux_err": "e_total_flux"},
    frequency_ghz=0.144,
)

ERASS1 = Preset(
    "erass1",
    "SRG/eROSITA all-sky survey eRASS1, main catalogue",
    radius_arcsec=15.0,
    ra=_J2000[0],
    dec=_J2000[1],
    id=("iauname", "detuid"),
    columns=(
        Known("pos_err", "arcsec", ("epos", "poserr"), "1-sigma error of the position"),
        Known("det_like_0", "", ("detlike0",), "likelihood of the detection"),
        Known("ml_flux_1", _FLUX, ("mlflux1",), "flux in 0.2-2.3 keV"),
        Known("ml_flux_err_1", _FLUX, ("e_mlflux1",), "its error"),
        Known("ext_like", "", ("extlike",), "likelihood of being extended"),
    ),
    bibcode="2024A&A...682A..34M",
    url="https://erosita.mpe.mpg.de/dr1/AllSkySurveyData_dr1/Catalogues_dr1/MerloniA_DR1/eRASS1_Main.html",
    vizier="J/A+A/682/A34/erass1-m",
    kind="xray",
    roles={"flux": "ml_flux_1", "flux_err": "ml_flux_err_1"},
    band="0.2-2.3 keV",
)

XMM = Preset(
    "4xmm",
    "4XMM-Newton serendipitous sources (slim; DR13 in VizieR)",
    radius_arcsec=5.0,
    ra=("sc_ra", "ra_icrs", "ra"),
    dec=("sc_dec", "de_icrs", "dec"),
    id=("srcid", "iauname", "4xmm", "_4xmm"),
    columns=(
        Known("sc_poserr", "arcsec", ("epos",), "1-sigma error of the position"),
        Known("sc_det_ml", "", ("srcml",), "likelihood of the detection"),
        Known("sc_ep_8_flux", _FLUX, ("flux8",), "flux in 0.2-12 keV"),
        Known("sc_ep_8_flux_err", _FLUX, ("e_flux8",), "its error"),
        Known("sc_sum_flag", "", ("s",), "0: good, to 4: probably spurious"),
    ),
    bibcode="2020A&A...641A.136W",
    url="http://xmmssc.irap.omp.eu/Catalogue/4XMM-DR14/col_id.html",
    vizier="IX/69/xmm4d13s",
    kind="xray",
    roles={"flux": "sc_ep_8_flux", "flux_err": "sc_ep_8_flux_err"},
    band="0.2-12 keV",
)

CSC2 = Preset(
    "csc2",
    "Chandra Source Catalog 2.1, master sources",
    radius_arcsec=3.0,
    ra=("ra", "raicrs", "ra_icrs"),
    dec=("dec", "deicrs", "de_icrs"),
    id=("name", "2cxo", "_2cxo"),
    columns=(
        Known("err_ellipse_r0", "arcsec", ("r0",), "major semi-axis of the 95 % error ellipse"),
        Known("significance", "", ("s/n", "s_n"), "significance of the flux"),
        Known("flux_aper_b", _FLUX, ("fluxb",), "flux in 0.5-7 keV, aperture corrected"),
        Known("extent_flag", "", ("fe",), "extended"),
    ),
    bibcode="2024ApJS..274...22E",
    url="https://cxc.cfa.harvard.edu/csc/columns/master_alpha.html",
    vizier="IX/70/csc21mas",
    kind="xray",
    roles={"flux": "flux_aper_b"},
    band="0.5-7 keV",
)

DR16Q = Preset(
    "sdss_dr16q",
    "SDSS quasar catalogue, sixteenth data release",
    radius_arcsec=1.0,
    ra=_J2000[0],
    dec=_J2000[1],
    id=("sdss_name", "sdss"),
    columns=(
        Known("z", "", (), "redshift"),
        Known("source_z", "", ("r_z",), "where the redshift comes from"),
        Known("zwarning", "", (), "pipeline warning bits"),
        Known("bal_prob", "", ("balprob",), "probability of broad absorption lines"),
    ),
    bibcode="2020ApJS..250....8L",
    url="https://data.sdss.org/datamodel/files/BOSS_QSO/DR16Q/DR16Q_v4.html",
    vizier="VII/289/dr16q",
    kind="quasars",
    roles={"z": "z"},
)

MILLIQUAS = Preset(
    "milliquas",
    "Million Quasars (Milliquas) catalogue, version 8",
    radius_arcsec=2.0,
    ra=_J2000[0],
    dec=_J2000[1],
    id=("name",),
    columns=(
        Known("type", "", (), "Q: type-1 quasar, A: AGN, B: BL Lac, N and K: type 2, and associations"),
        Known("z", "", (), "redshift from the literature"),
        Known("rmag", "mag", (), "red magnitude"),
    ),
    bibcode="2023OJAp....6E..49F",
    url="https://quasars.org/milliquas.htm",
    vizier="VII/294/catalog",
    kind="quasars",
    roles={"z": "z", "type": "type"},
)

SIMBAD = Preset(
    "simbad",
    "SIMBAD",
    radius_arcsec=2.0,
    ra=("ra",),
    dec=("dec",),
    id=("main_id",),
    columns=(
        Known("otype", "", ("main_type",), "object type"),
        Known("rvz_redshift", "", ("redshift",), "redshift"),
        Known("nbref", "", (), "papers"),
    ),
    bibcode="2000A&AS..143....9W",
    url="https://simbad.cds.unistra.fr/simbad/tap/tapsearch.html",
    vizier="simbad",
    tap_url="https://simbad.cds.unistra.fr/simbad/sim-tap",
    tap_table="basic",
    epoch=2000.0,
    motion=Motion(("pmra",), ("pmdec",)),
    kind="quasars",
    roles={"z": "rvz_redshift", "type": "otype"},
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        GAIA_DR3,
        ALLWISE,
        CATWISE2020,
        LEGACY_DR10,
        FIRST,
        VLASS,
        LOTSS_DR2,
        ERASS1,
        XMM,
        CSC2,
        DR16Q,
        MILLIQUAS,
        SIMBAD,
    )
}
