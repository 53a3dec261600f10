#!/usr/bin/env bash
# One sbatch, three allocations: the first ends at a true time limit, the second when its signal is sent by hand. The
# search ends with the same tree as one that was never stopped.
. "$(dirname "$0")/common.sh"
start_cluster 1

# A search that has as many rounds as it takes: it gets its last ones when it has been stopped twice.
"$trex" init model --hidden 192 --layers 4 --heads 2 --positions 64 > /dev/null
make_task ', "search": {"rounds": 5000, "configurations": 2, "seed": 3}, "limits": {"samples": 300, "steps": 240}'
# A minute is Slurm's shortest limit, and it looks at limits every 30 s only: the signal comes after 5 to 35 s.
job=$(submit --ntasks-per-node=2 --time=1 --signal=B:USR1@25 "$root/slurm/search.sbatch" job.json)
"$trex" search job.json --out whole > whole.txt 2>&1 &
whole=$!

# Beside it a job that has no margin at all, whose program neither hears TERM nor ends by itself.
mkdir stand-in
cat > stand-in/trex <<'SH'
#!/bin/sh
[ "$1" = search ] || exit 0
[ -z "$SLURM_RESTART_COUNT" ] || exit 0
trap '' TERM USR1
sleep 300
SH
chmod +x stand-in/trex
deaf=$(TREX=$PWD/stand-in/trex TREX_LAUNCH=mpirun submit --ntasks-per-node=1 --time=1 --signal=B:URG@1 \
    "$root/slurm/search.sbatch" none.json)

wait_until "$job" 120 "the time limit requeues it" restarted "$job" 1
scontrol update "JobId=$job" TimeLimit=20 # one true limit is enough
says "$job" 'told to stop \(limit\); left of the time limit: 0:[0-9]+'
says "$job" 'the ranks ended [0-9]+ s after that, with code 85'
kept=$(finished run)
echo "note: $(grep -oE 'left of the time limit: 0:[0-9]+' "trex-$job.log"), $(wc -w <<< "$kept") candidates were done"
ok "a true time limit stops the ranks with 85, and the job is requeued"

wait_until "$job" 60 "a candidate has finished" finished_more_than run "$(wc -w <<< "$kept")"
signal_limit "$job"
wait_until "$job" 60 "the signal requeues it" restarted "$job" 2
rounds=$(printf '%s\n' "$(rounds_of run)" "$(rounds_of whole)" | sort -n | tail -n 1)
for run in whole run; do
    expect 0 '' "$tree" set $run rounds=$((rounds + 3)) # before any has begun that many
done
expect_end "$job" 400 0 2
says "$job" 'the search has ended: all rounds are done'
grep -q 'goes on at step' run/log.jsonl || lost "$job" "no training went on from its state"
grep -q '^trex' < <(field "$job" Comment) || lost "$job" "no progress in the job's comment"
ok "the search ended in its third allocation"

expect_end "$deaf" 120 0 1
says "$deaf" 'told to stop \(limit\); left of the time limit: nothing'
ok "a job that reached its time limit is requeued even so"

wait $whole || { tail whole.txt; die "the search without interruption failed"; }
expect 0 '' "$tree" verify run
decided run > run.txt
decided whole > whole.txt
cmp run.txt whole.txt || { diff run.txt whole.txt | head -20; die "interrupted and whole search differ"; }
each_finished_once run
ok "interrupted and whole search have the same tree: $(finished whole | wc -l) candidates"
echo "$passed passed, 0 failed"
