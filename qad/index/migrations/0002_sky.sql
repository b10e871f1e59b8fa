-- Version 2: pixels and labels, positions indexed by declination zone, the columns that scores and matches leave open.

-- Text sorts by its bytes whatever the database's locale: as in the files, and faster.
ALTER TABLE spectrum ALTER survey TYPE text COLLATE "C", ALTER program TYPE text COLLATE "C",
    ALTER spectype TYPE text COLLATE "C", ALTER subtype TYPE text COLLATE "C", ALTER objtype TYPE text COLLATE "C",
    ALTER morphtype TYPE text COLLATE "C", ALTER photsys TYPE text COLLATE "C", ALTER file TYPE text COLLATE "C";
ALTER TABLE score ALTER survey TYPE text COLLATE "C", ALTER program TYPE text COLLATE "C",
    ALTER name TYPE text COLLATE "C", ALTER reason TYPE text COLLATE "C", ALTER class_guess TYPE text COLLATE "C",
    ALTER model TYPE text COLLATE "C", ALTER file TYPE text COLLATE "C";
ALTER TABLE match ALTER survey TYPE text COLLATE "C", ALTER program TYPE text COLLATE "C",
    ALTER name TYPE text COLLATE "C", ALTER catalog TYPE text COLLATE "C", ALTER catalog_id TYPE text COLLATE "C",
    ALTER file TYPE text COLLATE "C";

-- A zone is a tenth of a degree of declination (Gray, Nieto-Santisteban and Szalay 2007, "The Zones Algorithm").
ALTER TABLE spectrum ADD COLUMN zone smallint NOT NULL DEFAULT 0;
ALTER TABLE score ADD COLUMN zone smallint NOT NULL DEFAULT 0;
UPDATE spectrum SET zone = greatest(-901, least(901, floor(dec * 10)));
UPDATE score SET zone = greatest(-901, least(901, floor(dec * 10)));
ALTER TABLE spectrum ALTER zone DROP DEFAULT;
ALTER TABLE score ALTER zone DROP DEFAULT;

-- Every index costs a tenth of the rate of loading: those that another one answers for are gone.  A file's rows lie
-- together: the few blocks of a file or a pixel are found by an index of a few pages.
DROP INDEX spectrum_position, spectrum_z, spectrum_healpix, spectrum_file;
CREATE INDEX spectrum_zone ON spectrum (zone, ra);
CREATE INDEX spectrum_healpix ON spectrum USING brin (healpix) WITH (pages_per_range = 16);
CREATE INDEX spectrum_file ON spectrum USING brin (file) WITH (pages_per_range = 16);

DROP INDEX score_position, score_target, score_file;
CREATE INDEX score_zone ON score (zone, ra);
CREATE INDEX score_file ON score USING brin (file) WITH (pages_per_range = 16);
ALTER TABLE score DROP CONSTRAINT score_pkey, ADD PRIMARY KEY (targetid, survey, program, healpix, name);

DROP INDEX match_target, match_file;
CREATE INDEX match_file ON match USING brin (file) WITH (pages_per_range = 16);
ALTER TABLE match DROP CONSTRAINT match_pkey,
    ADD PRIMARY KEY (targetid, survey, program, healpix, name, catalog, ordinal);

CREATE TABLE pixel (
    file text COLLATE "C" NOT NULL,
    survey text COLLATE "C" NOT NULL,
    program text COLLATE "C" NOT NULL,
    healpix integer NOT NULL,
    n_spectra bigint NOT NULL,
    z_min double precision,
    z_max double precision,
    snr_median double precision,
    PRIMARY KEY (survey, program, healpix)
);
COMMENT ON TABLE pixel IS 'One row per extracted pixel, counted from its spectra';

CREATE TABLE label (
    file text COLLATE "C" NOT NULL,
    targetid bigint PRIMARY KEY,
    label text COLLATE "C" NOT NULL,
    label_comment text COLLATE "C" NOT NULL,
    label_who text COLLATE "C" NOT NULL,
    label_when text COLLATE "C" NOT NULL,
    label_model text COLLATE "C" NOT NULL
);
COMMENT ON TABLE label IS 'The last label of each target; the history stays in inspect/labels.jsonl';

-- What the jsonb columns of a file's rows hold: name to type.  No file counts as known until its columns are.
ALTER TABLE source_file ADD COLUMN open_columns jsonb NOT NULL DEFAULT '{}';
UPDATE source_file SET size = -1, mtime_ns = 0, sha256 = '';

-- Integers divide as in the files: 7 / 2 is 3.5.  Only a session that names this schema before pg_catalog sees these.
CREATE FUNCTION ratio(bigint, bigint) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
    'SELECT CASE WHEN $2 <> 0 THEN $1::double precision OPERATOR(pg_catalog./) $2::double precision
                 WHEN $1 = 0 THEN double precision ''NaN''
                 WHEN $1 > 0 THEN double precision ''Infinity''
                 ELSE double precision ''-Infinity'' END';
DO $do$
DECLARE
    a text;
    b text;
BEGIN
    FOREACH a IN ARRAY ARRAY['bigint', 'integer', 'smallint'] LOOP
        FOREACH b IN ARRAY ARRAY['bigint', 'integer', 'smallint'] LOOP
            IF a <> 'bigint' OR b <> 'bigint' THEN
                EXECUTE format(
                    'CREATE FUNCTION ratio(%s, %s) RETURNS double precision LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE '
                    'AS ''SELECT ratio($1::bigint, $2::bigint)''', a, b);
            END IF;
            EXECUTE format('CREATE OPERATOR / (FUNCTION = ratio, LEFTARG = %s, RIGHTARG = %s)', a, b);
        END LOOP;
    END LOOP;
END
$do$;
