"""Files: written aside and renamed, with their provenance inside."""
