#!/bin/sh
#SBATCH --job-name=qad-pixels
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem-per-cpu=3000
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
#SBATCH --open-mode=append
# One shard of the pixels: fetch them (unless QAD_SOURCE names a release that is here), and extract them.
set -u
# damaged units (exit 1) are listed in the log and do not stop what follows; a worse end stops it
run() {
    srun "$@"
    code=$?
    [ "$code" -le 1 ] || exit "$code"
}
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"

if [ -n "${QAD_SOURCE:-}" ]; then
    run qad extract --shard auto --jobs "$SRUN_CPUS_PER_TASK" --source "$QAD_SOURCE"
else
    # shellcheck disable=SC2086  # QAD_FETCH holds several options
    run qad fetch --shard auto ${QAD_FETCH:-}
    run qad extract --shard auto --jobs "$SRUN_CPUS_PER_TASK"
fi
