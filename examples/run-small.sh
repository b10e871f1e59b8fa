#!/bin/sh
# First look: every stage on a simulated release, then the ranked candidates here and in a gallery.
#   sh examples/run-small.sh [FOLDER]
# Needs Python 3.11 or newer; makes the environment on its first run.  About five minutes on two cores.
set -eu
cd "$(dirname "$0")/.."
sh examples/environment.sh

qad=.venv/bin/qad
folder=${1:-first-look}
quasars=${QUASARS:-1000}

"$qad" simulate "$folder/release" --quasars "$quasars" --healpix 4 --anomaly-rate 0.03 --seed 1 --no-resolution
"$qad" run --source "$folder/release" --root "$folder/work"
"$qad" inspect --root "$folder/work" --top 15
"$qad" inspect --root "$folder/work" --top 1 --plot
"$qad" inspect --root "$folder/work" --top 50 --html "$folder/gallery"
echo "open $folder/gallery/index.html in a browser; $folder/release/truth.parquet holds what was planted"
