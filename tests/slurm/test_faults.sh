#!/usr/bin/env bash
# A rank is killed, a node loses power, the node of the batch script does: the same job goes on to the end each time.
. "$(dirname "$0")/common.sh"
CLUSTER_KILL_WAIT=30 start_cluster 2
"$trex" init model --hidden 128 --layers 4 --heads 2 --positions 64 > /dev/null
make_task ', "search": {"rounds": 5000, "configurations": 3, "seed": 7}, "limits": {"samples": 300, "steps": 240}'
run=$scratch/run
kept=

# More is finished than when it was last asked, everything from then is still there, and the folder is whole.
goes_on() { # JOB
    wait_until "$1" 120 "another candidate has finished" finished_more_than "$run" "$(wc -w <<< "$kept")"
    [ -z "$(comm -23 <(printf '%s\n' $kept) <(finished "$run"))" ] || lost "$1" "the fault lost candidates"
    kept=$(finished "$run")
}

# Node down, as Slurm would find by itself in SlurmdTimeout; then up again.
lose_node() { # JOB NODE RESTARTS
    "$cluster" crash "$scratch/c" "$2"
    expect 0 '' "$tree" verify "$run"
    scontrol update NodeName="$2" State=DOWN Reason=power
    "$cluster" boot "$scratch/c" "$2"
    wait_until "$1" 60 "Slurm requeues it after the loss of $2" restarted "$1" "$3"
    goes_on "$1"
    ok "$2 lost its power; requeued, and nothing is lost"
}

started_again() { # JOB TIMES
    [ "$(grep -c 'what is on disk goes on' "trex-$1.log")" = "$2" ]
}

# The rank is killed; the others end before Slurm kills them, and all start again in the same allocation.
lose_rank() { # JOB RANK TIMES
    local began=$EPOCHREALTIME pid
    for pid in $(pgrep -f "^$trex search job.json --out $run"); do
        ! grep -qzx "PMIX_RANK=$2" "/proc/$pid/environ" || kill -KILL "$pid"
    done
    wait_until "$1" 60 "the ranks are started again" started_again "$1" "$3"
    awk -v from="$began" -v to="$EPOCHREALTIME" 'BEGIN { exit !(to - from < 25) }' ||
        lost "$1" "rank $2 died, and the others waited for Slurm to kill them"
    goes_on "$1"
    [ "$(field "$1" Restarts)" = 0 ] || lost "$1" "requeued for a rank"
    ok "rank $2 was killed; started again in the same allocation, and nothing is lost"
}

job=$(submit --nodes=2 --ntasks-per-node=2 --time=20 "$root/slurm/search.sbatch" job.json --out "$run")
goes_on "$job"
lose_rank "$job" 3 1
lose_rank "$job" 0 2

lose_node "$job" n2 1
lose_node "$job" n1 2
let_end "$run"
# A node that is slow to come up again may cost a start of the job more.
expect_end "$job" 200 0 2+
expect 0 '' "$tree" verify "$run"
wanted=$((3 * $(rounds_of "$run") + 1))
[ "$(finished "$run" | wc -l)" = $wanted ] || lost "$job" "$(finished "$run" | wc -l) candidates finished, not $wanted"
each_finished_once "$run"
ok "the search ended, and no candidate was trained again"
echo "$passed passed, 0 failed"
