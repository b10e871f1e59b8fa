#!/bin/sh
#SBATCH --job-name=qad-rest
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=3000
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
#SBATCH --open-mode=append
# What one node does: join the grid, train, score, list the candidates.  A GPU: add --gres=gpu:1.
# Run again after its time is over, it goes on: training from its last checkpoint, the others from finished units.
set -u
# damaged units (exit 1) are listed in the log and do not stop what follows; a worse end stops it
run() {
    srun "$@"
    code=$?
    [ "$code" -le 1 ] || exit "$code"
}
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"

run qad build-grid --jobs "$SRUN_CPUS_PER_TASK"
# shellcheck disable=SC2086  # QAD_TRAIN holds several options
run qad train --resume ${QAD_TRAIN:-}
run qad score --jobs "$SRUN_CPUS_PER_TASK"
run qad inspect --top 500 -o "$QAD_ROOT/candidates.csv"
