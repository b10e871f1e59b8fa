#!/bin/sh
# A paper's catalogue from a work directory whose candidates are ranked: how complete the search is, what the candidates are
# like, what a person said of them, and the folder that goes to a repository and a journal.
#   sh examples/catalogue.sh WORK-DIRECTORY CATALOGUE-FOLDER
# After examples/run-small.sh:  sh examples/catalogue.sh first-look/work first-look/catalogue
set -eu
work=$1
catalogue=$2
qad=${QAD:-$(dirname "$0")/../.venv/bin/qad}

# completeness from anomalies planted into held-out spectra, also where a truth is known
"$qad" evaluate --root "$work" --truth none
"$qad" measure --root "$work" --top 200

# a person would label in `qad inspect --review`; a script can, too
first=$("$qad" inspect --root "$work" --top 1 --columns targetid --format csv | tail -n 1)
"$qad" inspect "$first" --root "$work" --label interesting --comment "first of the list"

"$qad" publish "$catalogue" --root "$work" --top 100 --title "Unusual quasars" --author "Doe, Jane"
(cd "$catalogue" && sha256sum --check --quiet SHA256SUMS)
echo "see $catalogue/README.md"
