#!/usr/bin/env bash
# A model of 125 million parameters: from the start of the batch script to the end of the first training step it takes
# 10 s at most, in a new search and in an allocation that goes on with a training. Seconds are those of an idle machine:
# what other programs take of the processors at that time is measured, and the limit grows by it.
. "$(dirname "$0")/common.sh"
start_cluster 1
limit_s=10
"$trex" init model --hidden 768 --layers 12 --heads 12 --intermediate 3500 --positions 64 > init.txt
grep -q '^model: 125[0-9]* parameters' init.txt || die "not a model of 125 million parameters: $(cat init.txt)"
rows 64 1 > train.jsonl
rows 8 2 > dev.jsonl
rows 8 3 > test.jsonl
make_task ', "search": {"rounds": 1, "configurations": 1, "seed": 3}, "limits": {"samples": 64}'
sed -i 's/"checkpoint_seconds": 1/"checkpoint_seconds": 300, "batch_tokens": 64/' job.json

# The batch script as it is, but that it writes down when it begins. That the first training step after each start of the
# ranks is done is told by a fault that sleeps a moment and does nothing else.
sed "/common.sh/i echo \"\$EPOCHREALTIME\" > begun" "$root/slurm/search.sbatch" > started.sbatch
export TREX_FAULT=run.worker.step:2=slow # it passes once before the first step

# How much longer than alone a program takes now that wants every processor, for about a second.
burden() {
    local core
    for ((core = 0; core < $(nproc); core++)); do
        (TIMEFORMAT='%R %U'; time awk 'BEGIN { for (i = 0; i < 8000000; i++) { } }') 2> "burden.$core" &
    done
    wait
    awk '{ wall += $1; own += $2 } END { printf "%.2f", (wall > own) ? wall / own : 1 }' burden.*
}

begins_to_train() { # JOB TIMES
    [ "$(grep -c 'TREX_FAULT strikes' "trex-$1.log" 2> /dev/null)" = "$2" ]
}

# Waits for the first training step of a start of the ranks. Whether it came in time.
in_time() { # JOB TIMES WHAT
    local took after
    wait_until "$1" 150 "the first training step ($3)" begins_to_train "$1" "$2"
    took=$(awk -v from="$(cat begun)" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }')
    after=$(burden)
    echo "note: $3: $took s from the start of the batch script to the first training step; a program that wants all" \
        "processors took $before times its own time before, and $after times afterwards"
    awk -v took="$took" -v limit=$limit_s -v before="$before" -v after="$after" \
        'BEGIN { exit !(took <= limit * (before > after ? before : after)) }'
}

# The best of three: what else the machine does comes and goes.
for try in 1 2 3; do
    before=$(burden)
    job=$(submit --ntasks-per-node=2 --time=20 started.sbatch job.json --out run$try)
    ! in_time "$job" 1 "new search" || break
    [ $try -lt 3 ] || lost "$job" "that is too long"
    scancel "$job"
    wait_until "$job" 60 "its end" is_over "$job"
done
ok "a new search trains within $limit_s s, its baseline's evaluation on 8 rows included"
for restart in 1 2 3; do
    before=$(burden)
    signal_limit "$job"
    ! in_time "$job" $((restart + 1)) "training that goes on" || break
    [ $restart -lt 3 ] || lost "$job" "that is too long"
done
grep -q 'goes on at step' run$try/log.jsonl || lost "$job" "the training began again"
ok "an allocation that goes on with a training trains within $limit_s s"
scancel "$job"
echo "$passed passed, 0 failed"
