#!/usr/bin/env bash
# Several workers over several allocations, and another number of ranks in the next one: every finished candidate is
# kept, none is trained again.
. "$(dirname "$0")/common.sh"
start_cluster 1
"$trex" init model --hidden 128 --layers 4 --heads 2 --positions 64 > /dev/null
make_task ', "search": {"rounds": 5000, "configurations": 3, "seed": 5}, "limits": {"samples": 300, "steps": 240}'

none_lost() { # RUN NAMES...
    local run=$1 name
    shift
    for name in "$@"; do
        grep -qx "$name" < <(finished "$run") || die "$run: $name was finished before the stop and is lost"
    done
}

all_finished() { # JOB RUN: three candidates a round, and the baseline
    local wanted=$((3 * $(rounds_of "$2") + 1))
    [ "$(finished "$2" | wc -l)" = $wanted ] || lost "$1" "$2: $(finished "$2" | wc -l) candidates finished, not $wanted"
}

# Two workers, stopped twice in the middle of trainings.
job=$(submit --ntasks-per-node=3 --time=10 "$root/slurm/search.sbatch" job.json)
kept=
for restart in 1 2; do
    wait_until "$job" 120 "a candidate has finished" finished_more_than run $(($(wc -w <<< "$kept") + 1))
    signal_limit "$job"
    wait_until "$job" 60 "the signal requeues it" restarted "$job" $restart
    none_lost run $kept
    kept=$(finished run)
    expect 0 '' "$tree" verify run
done
let_end run
expect_end "$job" 200 0 2
none_lost run $kept
each_finished_once run
all_finished "$job" run
grep -q 'goes on at step' run/log.jsonl || lost "$job" "no training went on from its state"
ok "two workers over three allocations: every finished candidate is kept, none trained again"

# A run made with 3 ranks, where Slurm may not requeue it; then 1, 2 and 4 ranks go on with copies of it.
job=$(submit --ntasks-per-node=3 --time=10 --no-requeue "$root/slurm/search.sbatch" job.json --out three)
wait_until "$job" 120 "two candidates have finished" finished_more_than three 2
signal_limit "$job"
expect_end "$job" 60 85 0
says "$job" 'does not requeue the job: submit it again'
kept=$(finished three)
let_end three
jobs=
for ranks in 1 2 4; do
    cp -r three with$ranks
    jobs+=" $(submit --ntasks-per-node=$ranks --time=10 "$root/slurm/search.sbatch" job.json --out with$ranks)"
done
set -- $jobs
for ranks in 1 2 4; do
    expect_end "$1" 400 0 0
    says "$1" "starts $ranks ranks"
    says "$1" 'resuming'
    expect 0 '' "$tree" verify with$ranks
    none_lost with$ranks $kept
    each_finished_once with$ranks
    all_finished "$1" with$ranks
    shift
done
ok "1, 2 and 4 ranks go on with a run made with 3"
echo "$passed passed, 0 failed"
