"""A catalogue that can be deposited: tables in the formats that archives and journals take, spectra, figures, words."""
