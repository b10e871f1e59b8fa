-- Version 1: the scalar columns of the tables spectra, scores and matches, and the files that they came from.

CREATE TABLE source_file (
    path text PRIMARY KEY,
    kind text NOT NULL,
    size bigint NOT NULL,
    mtime_ns bigint NOT NULL,
    sha256 text NOT NULL,
    n_rows bigint NOT NULL
);
COMMENT ON TABLE source_file IS 'Files of the work directory whose rows are here; path is relative to its root';

CREATE TABLE spectrum (
    file text NOT NULL,
    targetid bigint NOT NULL,
    survey text NOT NULL,
    program text NOT NULL,
    healpix integer NOT NULL,
    ra double precision NOT NULL,
    dec double precision NOT NULL,
    z double precision NOT NULL,
    zerr double precision,
    zwarn bigint NOT NULL,
    spectype text NOT NULL,
    subtype text,
    chi2 double precision,
    deltachi2 double precision,
    npixels bigint,
    ncoeff bigint,
    objtype text,
    coadd_fiberstatus integer NOT NULL,
    coadd_numexp smallint,
    coadd_exptime real,
    desi_target bigint,
    morphtype text,
    photsys text,
    maskbits integer,
    ebv real,
    flux_g real,
    flux_r real,
    flux_z real,
    flux_w1 real,
    flux_w2 real,
    flux_ivar_g real,
    flux_ivar_r real,
    flux_ivar_z real,
    flux_ivar_w1 real,
    flux_ivar_w2 real,
    pmra real,
    pmdec real,
    parallax real,
    ref_id bigint,
    psf_to_fiber_specflux real,
    fiber integer,
    petal_loc smallint,
    tileid integer,
    night integer,
    tsnr2_qso real,
    tsnr2_lya real,
    tsnr2_lrg real,
    snr real NOT NULL,
    snr_b real,
    snr_r real,
    snr_z real,
    n_good integer NOT NULL,
    PRIMARY KEY (targetid, survey, program, healpix)
);
COMMENT ON TABLE spectrum IS 'One row per extracted spectrum; flux and ivar stay in the files';
CREATE INDEX spectrum_position ON spectrum (dec, ra);
CREATE INDEX spectrum_healpix ON spectrum (healpix);
CREATE INDEX spectrum_z ON spectrum (z);
CREATE INDEX spectrum_file ON spectrum (file);

CREATE TABLE score (
    file text NOT NULL,
    name text NOT NULL,
    rank bigint NOT NULL,
    targetid bigint NOT NULL,
    survey text NOT NULL,
    program text NOT NULL,
    healpix integer NOT NULL,
    ra double precision NOT NULL,
    dec double precision NOT NULL,
    z double precision NOT NULL,
    snr real NOT NULL,
    score double precision NOT NULL,
    p_value double precision NOT NULL,
    score_sd real,
    artefact real NOT NULL,
    reason text NOT NULL,
    class_guess text,
    "group" integer,
    chi2_dof real NOT NULL,
    n_good integer NOT NULL,
    worst_wave_rest real,
    flags bigint NOT NULL,
    model text NOT NULL,
    views jsonb NOT NULL,
    PRIMARY KEY (name, targetid, survey, program, healpix)
);
COMMENT ON TABLE score IS 'One row per scored spectrum and model; views holds each view and its p-value by name';
CREATE INDEX score_rank ON score (name, rank);
CREATE INDEX score_target ON score (targetid);
CREATE INDEX score_position ON score (dec, ra);
CREATE INDEX score_file ON score (file);

CREATE TABLE match (
    file text NOT NULL,
    name text NOT NULL,
    ordinal integer NOT NULL,
    rank bigint NOT NULL,
    targetid bigint NOT NULL,
    survey text NOT NULL,
    program text NOT NULL,
    healpix integer NOT NULL,
    catalog text NOT NULL,
    catalog_id text,
    sep_arcsec double precision,
    n_within integer NOT NULL,
    best boolean NOT NULL,
    columns jsonb NOT NULL,
    PRIMARY KEY (name, catalog, targetid, survey, program, healpix, ordinal)
);
COMMENT ON TABLE match IS 'One row per candidate and catalogue entry within the radius; columns holds the catalogue columns by name';
CREATE INDEX match_target ON match (targetid);
CREATE INDEX match_file ON match (file);
