#!/usr/bin/env bash
# 22 times a search is told to stop at a random moment, from the loading of the first data on: each time all is safe no
# later than the program had foreseen. Twenty times the ranks start again in one allocation, which saves waiting for
# Slurm; twice the job's own batch script does the same by requeue.  SEED: of the moments
. "$(dirname "$0")/common.sh"
start_cluster 1
RANDOM=${SEED:-4}
drains=20
"$trex" init model --hidden 128 --layers 4 --heads 2 --positions 64 > /dev/null
make_task ', "search": {"rounds": 5000, "configurations": 3, "seed": 11}, "limits": {"samples": 300, "steps": 240}'

# "PREDICTED SAFE" of the last allocation, and how many there were.
last_drain() {
    "$tree" status run --json | tr -d '\t\n' | sed -nE \
        's/.*"predicted_s":([0-9.e+-]+),"safe_s":([0-9.e+-]+)\}\],"incidents".*/\1 \2/p'
}
allocations() {
    { "$tree" status run --json 2> /dev/null || echo '"allocations":0,'; } | tr -d '\t\n' | sed -E \
        's/.*"allocations":([0-9]+),.*/\1/'
}

# Fails unless all was safe in time.
check_drain() { # JOB WHAT
    local drain predicted safe
    drain=$(last_drain)
    [ -n "$drain" ] || lost "$1" "$2: the tree does not say how long it took until all was safe"
    read -r predicted safe <<< "$drain"
    printf '%s: safe after %.2f s, %.2f s were foreseen\n' "$2" "$safe" "$predicted"
    awk -v safe="$safe" -v predicted="$predicted" 'BEGIN { exit !(safe <= predicted) }' ||
        lost "$1" "$2: that took longer than was foreseen"
    "$tree" verify run > verify.txt 2>&1 || { cat verify.txt; lost "$1" "$2: verify fails"; }
}

# One allocation in which the ranks start again and again; this test sends the signals.
cat > drains.sbatch <<SH
#!/bin/bash
#SBATCH --output=trex-%j.log --open-mode=append
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive SLURM_EXPORT_ENV=ALL
while [ ! -e enough ]; do
    code=0
    srun --mpi=pmix --kill-on-bad-exit=1 $trex search job.json >> ranks.log 2>&1 || code=\$?
    echo \$code >> codes
    while [ -e codes ] && [ ! -e enough ]; do sleep 0.1; done
done
SH
begun() { # COUNT: so many allocations are in the tree
    [ "$(allocations)" -ge "$1" ]
}
job=$(submit --ntasks-per-node=3 --time=20 drains.sbatch)
for ((drain = 1; drain <= drains; drain++)); do
    wait_until "$job" 60 "the ranks have begun" begun $drain
    sleep "$(awk -v r="$RANDOM" 'BEGIN { printf "%.2f", 3 * (r / 32768) ^ 2 }')" # early moments are the more various ones
    scancel --signal=USR1 "$job" # to the steps alone
    wait_until "$job" 60 "the ranks end" test -e codes
    [ "$(cat codes)" = 85 ] || { tail ranks.log; lost "$job" "drain $drain: the ranks ended with $(cat codes), not 85"; }
    check_drain "$job" "drain $drain"
    [ $drain -lt $drains ] || touch enough
    rm codes
done
expect_end "$job" 30 0 0
ok "$drains of $drains times all was safe no later than foreseen"

# The same by requeue.
requeued() { # JOB TIMES
    [ "$(grep -c 'requeued, the next' "trex-$1.log" 2> /dev/null)" = "$2" ]
}
job=$(submit --ntasks-per-node=3 --time=20 "$root/slurm/search.sbatch" job.json)
for restart in 1 2; do
    wait_until "$job" 60 "the ranks have begun" begun $((drains + restart))
    sleep 1
    signal_limit "$job"
    wait_until "$job" 60 "the signal requeues it" requeued "$job" $restart
    check_drain "$job" "requeue $restart" # the next allocation begins some seconds later
done
expect 0 '' "$tree" halt run
expect_end "$job" 60 0 2
says "$job" 'all was safe [0-9.]+ s after the signal; [0-9.]+ s were foreseen'
each_finished_once run
expect 0 '' "$tree" verify run
ok "so it was in 2 requeues; the log says so"
echo "$passed passed, 0 failed"
