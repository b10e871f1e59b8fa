#!/bin/sh
# The whole pipeline as Slurm jobs: an array that fetches and extracts, an array that resamples, one job for the rest.
#   export QAD_ROOT=/shared/qad                       # on a file system that all nodes see
#   export QAD_FETCH="--survey main --program dark"   # what to fetch; or, of a release that is here, QAD_SOURCE=/data/dr1
#   sh examples/slurm/submit.sh 64                    # in 64 shards; further options go to sbatch: --account=... --time=...
# Prints the job numbers.  Run it again after any failure: finished work is recognised.  Some of 64 shards alone:
#   QAD_SHARDS=64 sbatch --array=3,17 examples/slurm/pixels.sh
set -eu
shards=${1:-8}
[ $# -eq 0 ] || shift
: "${QAD_ROOT:?name the work directory, on a file system that all nodes see}"
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$QAD_ROOT/log"

submit() {
    sbatch --parsable --chdir="$QAD_ROOT" --output="$QAD_ROOT/log/slurm-%x-%j.out" --kill-on-invalid-dep=yes "$@"
}

array="0-$((shards - 1))"
pixels=$(submit --array="$array" "$@" "$here/pixels.sh")
grid=$(submit --array="$array" --dependency="afterok:$pixels" "$@" "$here/grid.sh")
rest=$(submit --dependency="afterok:$grid" "$@" "$here/rest.sh")
echo "$pixels $grid $rest"
