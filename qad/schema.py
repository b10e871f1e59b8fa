"""The tables through which the stages meet: columns, types, units, version.  Read this first.

A table is a Parquet file whose Arrow schema carries ``unit`` and ``description`` on every field and the table's name
and version (``spectra/1``) in its metadata.  Vectors are fixed-size lists of float32, `Array` in Polars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

FLUX_UNIT = "1e-17 erg s-1 cm-2 Angstrom-1"
IVAR_UNIT = "1e34 s2 cm4 Angstrom2 erg-2"

WAVE_START = 3600.0
"""First observed wavelength of the merged grid, Å, vacuum, solar-system barycentre (DESI data model, coadd)."""
WAVE_STEP = 0.8
"""Step of the merged grid, Å."""
N_WAVE = 7781
"""Pixels of the merged grid: 3600 to 9824 Å."""
N_COEFF = 10
"""Length of redrock's COEFF vector."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
    dtype : str
        An Arrow type by name, ``dictionary`` for repeated text, or ``float32[n]`` for a vector whose length `n` is a
        number or the name of a size given to :meth:`Table.arrow`.
    unit, description : str
    nullable : bool
    """

    name: str
    dtype: str
    unit: str = ""
    description: str = ""
    nullable: bool = False

    @property
    def is_vector(self) -> bool:
        """Whether the column holds a vector."""
        return self.dtype.endswith("]")

    def arrow(self, sizes: dict[str, int]) -> pa.Field:
        """Return the Arrow field; `sizes` gives the lengths of vectors by name."""
        import pyarrow as pa

        metadata = {"unit": self.unit, "description": self.description}
        return pa.field(self.name, arrow_type(self.dtype, sizes), nullable=self.nullable, metadata=metadata)


def arrow_type(dtype: str, sizes: dict[str, int] | None = None) -> pa.DataType:
    """Return the Arrow type that a :class:`Column` names."""
    import pyarrow as pa

    if dtype.endswith("]"):
        base, _, length = dtype[:-1].partition("[")
        n = int(length) if length.isdigit() else (sizes or {})[length]
        return pa.list_(pa.field("item", arrow_type(base), nullable=False), n)
    if dtype == "dictionary":
        return pa.dictionary(pa.int32(), pa.string())
    if dtype in ("float16", "halffloat"):
        return pa.float16()
    return getattr(pa, {"bool": "bool_"}.get(dtype, dtype))()


@dataclass(frozen=True)
class Table:
    """A table: its name, version, columns and the columns it is sorted by."""

    name: str
    version: int
    columns: tuple[Column, ...]
    sort: tuple[str, ...]
    open_prefixes: tuple[str, ...] = ()
    """Further columns are allowed if their names start so (views of `scores`, catalogue columns of `matches`)."""

    @property
    def tag(self) -> str:
        """Name and version as the files carry them."""
        return f"{self.name}/{self.version}"

    def column(self, name: str) -> Column:
        """Return a column by name."""
        return next(column for column in self.columns if column.name == name)

    def arrow(self, **sizes: int) -> pa.Schema:
        """Return the Arrow schema; `sizes` gives the lengths of vectors by name (``n_obs=2180``)."""
        import pyarrow as pa

        return pa.schema([column.arrow(sizes) for column in self.columns])


_KEY = (
    Column("targetid", "int64", "", "DESI TARGETID"),
    Column("survey", "dictionary", "", "DESI survey: main, sv1, sv2, sv3, special, cmx"),
    Column("program", "dictionary", "", "DESI program: dark, bright, backup, other"),
    Column("healpix", "int32", "", "HEALPix pixel, nside 64, nested"),
    Column("ra", "float64", "deg", "right ascension, ICRS"),
    Column("dec", "float64", "deg", "declination, ICRS"),
    Column("z", "float64", "", "redshift of redrock"),
)

SPECTRUM_KEY = ("targetid", "survey", "program", "healpix")
"""What identifies a spectrum: a TARGETID can be observed in several surveys and programs, reduced separately."""

SPECTRA = Table(
    "spectra",
    1,
    (
        *_KEY,
        Column("zerr", "float64", "", "statistical error of z", True),
        Column("zwarn", "int64", "", "redrock warning bits, 0 is good"),
        Column("spectype", "string", "", "redrock class"),
        Column("subtype", "string", "", "redrock subclass", True),
        Column("chi2", "float64", "", "chi2 of redrock's best fit", True),
        Column("deltachi2", "float64", "", "chi2 of redrock's second best fit less that of the best", True),
        Column("npixels", "int64", "", "pixels in redrock's fit", True),
        Column("ncoeff", "int64", "", "coefficients of redrock's fit", True),
        Column(
            "coeff", f"float64[{N_COEFF}]", FLUX_UNIT, "redrock template coefficients, the first ncoeff count", True
        ),
        Column("objtype", "string", "", "TGT, SKY, NON or BAD", True),
        Column("coadd_fiberstatus", "int32", "", "bitwise AND of the fibre status of the exposures"),
        Column("coadd_numexp", "int16", "", "exposures in the coadd", True),
        Column("coadd_exptime", "float32", "s", "exposure time of the coadd", True),
        Column("desi_target", "int64", "", "targeting bits (main and special surveys)", True),
        Column("morphtype", "string", "", "imaging morphology, PSF for a point source", True),
        Column("photsys", "string", "", "N: BASS and MzLS, S: DECaLS", True),
        Column("maskbits", "int32", "", "imaging mask bits", True),
        Column("ebv", "float32", "mag", "Galactic E(B-V) of Schlegel, Finkbeiner and Davis (1998)", True),
        Column("flux_g", "float32", "nanomaggy", "Legacy Surveys g, not corrected for dust", True),
        Column("flux_r", "float32", "nanomaggy", "Legacy Surveys r, not corrected for dust", True),
        Column("flux_z", "float32", "nanomaggy", "Legacy Surveys z, not corrected for dust", True),
        Column("flux_w1", "float32", "nanomaggy", "WISE W1", True),
        Column("flux_w2", "float32", "nanomaggy", "WISE W2", True),
        Column("flux_ivar_g", "float32", "nanomaggy-2", "inverse variance of flux_g", True),
        Column("flux_ivar_r", "float32", "nanomaggy-2", "inverse variance of flux_r", True),
        Column("flux_ivar_z", "float32", "nanomaggy-2", "inverse variance of flux_z", True),
        Column("flux_ivar_w1", "float32", "nanomaggy-2", "inverse variance of flux_w1", True),
        Column("flux_ivar_w2", "float32", "nanomaggy-2", "inverse variance of flux_w2", True),
        Column("pmra", "float32", "mas yr-1", "proper motion in right ascension, times cos(dec)", True),
        Column("pmdec", "float32", "mas yr-1", "proper motion in declination", True),
        Column("parallax", "float32", "mas", "parallax", True),
        Column("ref_id", "int64", "", "Gaia source where ref_cat says so", True),
        Column("psf_to_fiber_specflux", "float32", "", "MEAN_PSF_TO_FIBER_SPECFLUX", True),
        Column("fiber", "int32", "", "fibre of the first exposure", True),
        Column("petal_loc", "int16", "", "petal of the first exposure", True),
        Column("tileid", "int32", "", "tile of the first exposure", True),
        Column("night", "int32", "", "night of the first exposure, YYYYMMDD", True),
        Column("tsnr2_qso", "float32", "", "template signal-to-noise squared for quasars", True),
        Column("tsnr2_lya", "float32", "", "template signal-to-noise squared for the Lyman-alpha forest", True),
        Column("tsnr2_lrg", "float32", "", "template signal-to-noise squared for luminous red galaxies", True),
        Column("snr", "float32", "", "median signal-to-noise per good 0.8 Å pixel"),
        Column("snr_b", "float32", "", "the same in camera b; null: camera missing", True),
        Column("snr_r", "float32", "", "the same in camera r; null: camera missing", True),
        Column("snr_z", "float32", "", "the same in camera z; null: camera missing", True),
        Column("n_good", "int32", "", "pixels with ivar > 0"),
        Column("flux", f"float32[{N_WAVE}]", FLUX_UNIT, "flux on 3600 + 0.8 k Å, vacuum, barycentric, not dereddened"),
        Column("ivar", f"float32[{N_WAVE}]", IVAR_UNIT, "inverse variance; 0: do not use"),
    ),
    ("targetid",),
)

GRID = Table(
    "grid",
    1,
    (
        *_KEY,
        Column("zwarn", "int64", "", "redrock warning bits"),
        Column("snr", "float32", "", "median signal-to-noise per good 0.8 Å pixel"),
        Column("ebv", "float32", "mag", "E(B-V) that was undone; 0 without dereddening"),
        Column("split", "uint8", "", "0 train, 1 validation, 2 test; the same for all spectra of a TARGETID"),
        Column("norm", "float32", FLUX_UNIT, "what flux was divided by"),
        Column("start", "int32", "", "grid pixel of the window's first pixel"),
        Column("coverage", "float32", "", "share of the window's pixels with ivar > 0"),
        Column("flux", "float32[n_obs]", "", "flux / norm; pixel k lies at loglam0 + (start + k) dloglam"),
        Column("ivar", "float32[n_obs]", "", "ivar norm^2; 0: do not use"),
    ),
    ("targetid", "survey", "program", "healpix"),
)

SCORES = Table(
    "scores",
    1,
    (
        Column("rank", "int64", "", "1 is the first candidate"),
        *_KEY,
        Column("snr", "float32", "", "median signal-to-noise per good 0.8 Å pixel"),
        Column("score", "float64", "", "higher is stranger; calibrated against spectra of like S/N and redshift"),
        Column("p_value", "float64", "", "share of normal spectra of like S/N and redshift expected to score as high"),
        Column("score_sd", "float32", "", "standard deviation of the score over the ensemble", True),
        Column("artefact", "float32", "", "probability-like artefact score, 0 to 1"),
        Column("reason", "string", "", "what drives the score, in words"),
        Column("class_guess", "string", "", "anomaly class that the views suggest", True),
        Column("group", "int32", "", "group of like candidates", True),
        Column("chi2_dof", "float32", "", "reduced chi2 of the reconstruction, noise only"),
        Column("n_good", "int32", "", "grid pixels with ivar > 0"),
        Column("worst_wave_rest", "float32", "Angstrom", "rest wavelength of the strongest residual window", True),
        Column("flags", "uint32", "", "bits: see qad.scoring.rank"),
        Column("model", "dictionary", "", "model directory's name and hash"),
        Column("latent", "float32[n_latent]", "", "latent position"),
    ),
    ("rank",),
    open_prefixes=("view_", "p_", "rank_"),
)

MATCHES = Table(
    "matches",
    1,
    (
        Column("rank", "int64", "", "rank of the candidate"),
        Column("targetid", "int64", "", "DESI TARGETID"),
        Column("survey", "dictionary", "", "DESI survey"),
        Column("program", "dictionary", "", "DESI program"),
        Column("healpix", "int32", "", "HEALPix pixel, nside 64, nested"),
        Column("catalog", "dictionary", "", "catalogue's name"),
        Column("catalog_id", "string", "", "identifier in the catalogue; null: no match", True),
        Column("sep_arcsec", "float64", "arcsec", "separation on the sphere; null: no match", True),
        Column("n_within", "int32", "", "catalogue entries within the radius"),
        Column("best", "bool", "", "the nearest of the candidate's matches"),
    ),
    ("rank", "sep_arcsec"),
    open_prefixes=("cat_", "chance_"),
)

COUNTERPARTS = Table(
    "counterparts",
    1,
    (
        Column("rank", "int64", "", "rank of the candidate"),
        Column("targetid", "int64", "", "DESI TARGETID"),
        Column("survey", "dictionary", "", "DESI survey"),
        Column("program", "dictionary", "", "DESI program"),
        Column("healpix", "int32", "", "HEALPix pixel, nside 64, nested"),
        Column("n_searched", "int32", "", "catalogues that were searched for it"),
        Column("n_matched", "int32", "", "catalogues that have it"),
        Column("matched", "string", "", "their names"),
        Column("known", "bool", "", "a catalogue of quasars or SIMBAD lists it; null: none was searched", True),
        Column("known_catalog", "string", "", "the one that says most: SDSS DR16Q, Milliquas, SIMBAD", True),
        Column("known_id", "string", "", "its name there", True),
        Column("known_type", "string", "", "its type there", True),
        Column("known_z", "float64", "", "its redshift there", True),
        Column("known_chance_p", "float64", "", "probability that this entry is unrelated", True),
        Column("delta_z", "float64", "", "z - known_z", True),
        Column("delta_v_kms", "float64", "km s-1", "c (z - known_z) / (1 + known_z)", True),
        Column("gaia_id", "string", "", "Gaia DR3 source", True),
        Column("pm_sig", "float64", "", "proper motion in units of its error; above 5: hardly a quasar", True),
        Column("parallax_sig", "float64", "", "parallax above that of quasars in units of its error", True),
        Column("wise_catalog", "string", "", "where the mid-infrared colours come from", True),
        Column("w1_w2", "float64", "mag", "W1 - W2, Vega", True),
        Column("w1_w2_err", "float64", "mag", "error of w1_w2", True),
        Column("w2_w3", "float64", "mag", "W2 - W3, Vega (AllWISE)", True),
        Column("w2_w3_err", "float64", "mag", "error of w2_w3", True),
        Column("radio_detected", "bool", "", "a radio survey has it; null: none was searched", True),
        Column("radio_catalog", "string", "", "the one whose flux is given: FIRST, VLASS, LoTSS", True),
        Column("radio_id", "string", "", "its name there", True),
        Column("radio_flux", "float64", "mJy", "integrated flux density", True),
        Column("radio_frequency", "float64", "GHz", "where it was observed", True),
        Column("radio_chance_p", "float64", "", "probability that this entry is unrelated", True),
        Column("radio_loudness", "float64", "", "f_nu(5 GHz) / f_nu(2500 Å), rest frame", True),
        Column("radio_loudness_4400", "float64", "", "f_nu(5 GHz) / f_nu(4400 Å), rest frame", True),
        Column("radio_loud", "bool", "", "radio_loudness > 10", True),
        Column("xray_detected", "bool", "", "an X-ray catalogue has it; null: none was searched", True),
        Column("xray_catalog", "string", "", "the one whose flux is given: Chandra, XMM, eROSITA", True),
        Column("xray_id", "string", "", "its name there", True),
        Column("xray_flux", "float64", "erg s-1 cm-2", "flux in xray_band", True),
        Column("xray_band", "string", "", "energies of xray_flux", True),
        Column("xray_chance_p", "float64", "", "probability that this entry is unrelated", True),
    ),
    ("rank",),
)
"""What the catalogues that crossmatch knows say of a candidate together: one row each."""


LINE_FLUX_UNIT = "1e-17 erg s-1 cm-2"
MEASURED_LINES: tuple[tuple[str, str, bool], ...] = (
    ("lya", "Ly alpha 1216, from its red half", True),
    ("nv", "N V 1240", True),
    ("siiv_oiv", "Si IV 1397 + O IV] 1402", True),
    ("oi1304", "O I 1304", True),
    ("cii1335", "C II 1335", False),
    ("civ", "C IV 1549", True),
    ("heii1640", "He II 1640", True),
    ("oiii1663", "O III] 1663", True),
    ("niv1486", "N IV] 1486", False),
    ("ciii", "C III] 1909", True),
    ("aliii", "Al III 1857", True),
    ("siiii", "Si III] 1892", False),
    ("niii1750", "N III] 1750", False),
    ("mgii", "Mg II 2799", True),
    ("nev3426", "[Ne V] 3427", True),
    ("oii", "[O II] 3727, 3730", True),
    ("neiii3869", "[Ne III] 3870", True),
    ("hdelta", "H delta, broad", True),
    ("hgamma", "H gamma, broad", True),
    ("oiii4364", "[O III] 4364", True),
    ("hbeta", "H beta, broad", True),
    ("oiii5008", "[O III] 5008", True),
    ("hbeta_narrow", "H beta, narrow", False),
    ("heii4687", "He II 4687", True),
    ("hei5877", "He I 5877", True),
    ("halpha", "H alpha, broad", True),
    ("halpha_narrow", "H alpha, narrow", True),
    ("nii6585", "[N II] 6585", False),
    ("sii6718", "[S II] 6718", False),
    ("sii6733", "[S II] 6733", False),
    ("oi6302", "[O I] 6302", False),
)
"""Lines that `measure` fits: name in columns, name for people, and whether it has a width and shift of its own."""
LINE_COMPLEXES = (
    *("lya", "siiv", "civ", "ciii", "mgii", "nev", "oii", "neiii", "hdelta", "hgamma", "hbeta", "hei", "halpha"),
)
"""Names of the groups of lines that are fitted together."""


def _line_columns(name: str, text: str, has_shape: bool) -> list[Column]:
    quantities = [
        ("flux", LINE_FLUX_UNIT, "observed flux, corrected for Galactic dust"),
        ("ew", "Angstrom", "rest equivalent width over all that is smooth, positive in emission"),
        *([("fwhm", "km s-1", "full width at half maximum, intrinsic")] if has_shape else []),
        *([("shift", "km s-1", "half-flux velocity from z, negative towards us")] if has_shape else []),
    ]
    found = []
    for quantity, unit, what in quantities:
        found += [
            Column(f"{name}_{quantity}", "float32", unit, f"{text}: {what}", True),
            Column(f"{name}_{quantity}_err", "float32", unit, f"{text}: error of {name}_{quantity}", True),
        ]
    limit = f"{text}: 3 sigma upper limit of {name}_ew where the flux is below 3 sigma"
    return [*found, Column(f"{name}_ew_limit", "float32", "Angstrom", limit, True)]


def _with_error(name: str, unit: str, text: str) -> list[Column]:
    return [
        Column(name, "float32", unit, text, True),
        Column(f"{name}_err", "float32", unit, f"error of {name}", True),
    ]


MEASURES = Table(
    "measures",
    1,
    (
        Column("rank", "int64", "", "rank of the candidate"),
        *_KEY,
        *_with_error("slope_uv", "", "exponent of F_lambda below 5000 Å"),
        *_with_error("slope_opt", "", "exponent of F_lambda above 5000 Å"),
        *_with_error("slope_break", "", "slope_opt less slope_uv"),
        *(
            column
            for wave in (1450, 3000, 5100)
            for column in (
                *_with_error(f"flux_{wave}", FLUX_UNIT, f"continuum F_lambda at rest {wave} Å, as observed"),
                *_with_error(f"loglum_{wave}", "dex(erg s-1)", f"log10 of lambda L_lambda at rest {wave} Å"),
            )
        ),
        *_with_error("ai_civ", "km s-1", "absorption index of C IV"),
        *_with_error("bi_civ", "km s-1", "balnicity index of C IV"),
        Column("bal_vmin", "float32", "km s-1", "where C IV absorption begins, negative: outflow", True),
        Column("bal_vmax", "float32", "km s-1", "where C IV absorption ends", True),
        Column("z_alt", "float64", "", "best other redshift at which a strong line would be another one", True),
        Column("z_alt_dchi2", "float32", "", "chi2 at z less chi2 at z_alt; positive: z_alt fits better", True),
        Column("z_alt_lines", "string", "", "which line would be which", True),
        Column("redrock_chi2_dof", "float32", "", "chi2 over pixels less coefficients, of redrock's fit", True),
        Column("redrock_deltachi2", "float32", "", "chi2 of redrock's second best fit less that of the best", True),
        Column("redrock_template", "string", "", "template of redrock's fit", True),
        *(column for line in MEASURED_LINES for column in _line_columns(*line)),
        *(
            Column(f"{name}_fit_chi2", "float32", "", f"reduced chi2 of the fit of the {name} complex", True)
            for name in LINE_COMPLEXES
        ),
    ),
    ("rank",),
)
"""Lines, continuum, absorption and other redshifts; null: not covered, or not measurable."""

TRUTH = Table(
    "truth",
    1,
    (
        Column("targetid", "int64", "", "DESI TARGETID"),
        Column("survey", "dictionary", "", "DESI survey"),
        Column("program", "dictionary", "", "DESI program"),
        Column("healpix", "int32", "", "HEALPix pixel, nside 64, nested"),
        Column("kind", "dictionary", "", "qso, galaxy, star, sky or dead"),
        Column("z_true", "float64", "", "true redshift (redrock's may be wrong on purpose)", True),
        Column("anomaly", "dictionary", "", "planted anomaly class; null: none", True),
        Column("artefact", "dictionary", "", "planted artefact class; null: none", True),
        Column("strength", "float32", "", "0 mild to 1 strong", True),
        Column("snr_true", "float32", "", "noise-free median signal-to-noise per pixel", True),
    ),
    ("targetid",),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (SPECTRA, GRID, SCORES, MATCHES, COUNTERPARTS, MEASURES, TRUTH)
}
