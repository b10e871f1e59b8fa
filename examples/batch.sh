#!/bin/sh
# A batch run on a workstation: fetch some pixels of DR1, then every stage; safe to start again after any interruption.
#   QAD_ROOT=/data/qad sh examples/batch.sh main dark
# Exit codes: 0 done; 1 some units failed (run again later); 2, 3 never retry; 4 retry; 5 make room; 130, 143 run again.
set -u
survey=${1:-main}
program=${2:-dark}
limit=${LIMIT:-100}

attempt=1
while :; do
    qad fetch --resume --survey "$survey" --program "$program" --limit "$limit"
    code=$?
    case $code in
        0) break ;;
        1 | 4) [ "$attempt" -ge 5 ] && exit "$code"; sleep $((attempt * 60)); attempt=$((attempt + 1)) ;;
        *) exit "$code" ;;
    esac
done
qad extract --survey "$survey" --program "$program" || [ $? = 1 ] || exit 3
qad build-grid && qad train && qad score && qad inspect --top 50 --html candidates && qad inspect --top 500 -o candidates.csv
