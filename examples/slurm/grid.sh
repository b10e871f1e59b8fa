#!/bin/sh
#SBATCH --job-name=qad-grid
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=3000
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
#SBATCH --open-mode=append
# One shard of the resampling; rest.sh joins them.
set -u
# damaged units (exit 1) are listed in the log and do not stop what follows; a worse end stops it
run() {
    srun "$@"
    code=$?
    [ "$code" -le 1 ] || exit "$code"
}
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"

run qad build-grid --shard auto --jobs "$SRUN_CPUS_PER_TASK"
