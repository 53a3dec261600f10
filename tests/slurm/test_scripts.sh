#!/usr/bin/env bash
# What the batch scripts do beside going on: launchers, several nodes, GPUs, wrong jobs, ranks that die, chains, arrays.
. "$(dirname "$0")/common.sh"
CLUSTER_GPUS=2 start_cluster 2
make_task ', "search": {"rounds": 2, "configurations": 2, "seed": 3}, "limits": {"samples": 300, "steps": 40}'

# Several ranks a candidate on two nodes, by a copy of the script with lines edited, submitted from elsewhere.
sed 's/"threads": 1/"threads": 1, "ranks_per_candidate": 2/' job.json > pairs.json
sed -E -e 's/^#SBATCH --nodes=.*/#SBATCH --nodes=2 --ntasks-per-node=3 --cpus-per-task=1   # EDIT/' \
    -e 's/^(#SBATCH --time=)[0-9:]+/\100:10:00/' "$root/slurm/search-multinode.sbatch" > mine.sbatch
job=$(sbatch --parsable mine.sbatch pairs.json --out by-srun)
other=$(TREX_LAUNCH=mpirun sbatch --parsable mine.sbatch pairs.json --out by-mpirun)
for run in by-srun by-mpirun; do
    expect_end "$job" 120 0 0
    [ "$(finished $run | wc -l)" = 5 ] || lost "$job" "$run: $(finished $run | wc -l) candidates finished, not 5"
    job=$other
done
job=$((other - 1))
says "$job" 'starts 5 ranks on 2 node\(s\) by srun --mpi=pmix'
says "$other" 'starts 5 ranks on 2 node\(s\) by mpirun'
ok "two nodes, two ranks a candidate, by srun and by mpirun"

# A program that stands in for trex tells where each rank goes and what it sees, and then does what the job's name says.
# The run folder of-NAME says how often it was started; the stand-in of trex-tree takes starts of "gets_on" for progress.
mkdir stand-in
cat > stand-in/trex <<'SH'
#!/bin/sh
case $1 in
    version) echo "Open MPI"; exit ;;
    check) echo "of-$2"; exit ;;
esac
echo "rank $PMIX_RANK on $SLURMD_NODENAME sees ${CUDA_VISIBLE_DEVICES-}, $OMP_NUM_THREADS threads, $OMP_WAIT_POLICY"
[ "$PMIX_RANK" = 0 ] || exit 0
echo "rank 0 has $((TREX_DEADLINE - $(date +%s))) s, before it ${TREX_PREVIOUS-nothing}"
mkdir -p "of-$2"
echo start >> "of-$2/starts"
starts=$(wc -l < "of-$2/starts")
case $2 in
    dies) [ "$starts" -gt 2 ] || kill -SEGV $$ ;; # the first two times
    gets_on) [ "$starts" -gt 3 ] || exit 1 ;;
    hopeless) exit 1 ;;
    taken) [ "$starts" -gt 2 ] || exit 75 ;; # by another job, which ends after a while
    kept | patient) exit 75 ;;
    full) [ "$starts" -gt 2 ] || exit 74 ;; # until somebody makes room
    stays_full) exit 74 ;;
    stalls) exit 85 ;;
    asks) [ "$starts" -gt 2 ] || exit 85 ;; # each allocation has but answers of agents to show
esac
echo finished > "of-$2/condition"
SH
cat > stand-in/trex-tree <<'SH'
#!/bin/sh
starts=$(wc -l < "$2/starts") || exit 1
answers=0
[ "$2" != of-asks ] || answers=$starts
[ "$2" = of-gets_on ] || starts=0
tr -d ' ' <<JSON
{"condition": "$(cat "$2/condition" || echo stopped)", "rounds": {"closed": 0, "failed": 0, "open": 0, "planned": 9},
 "candidates": {"planned": 0, "running": 0, "suspended": 0, "finished": $starts, "failed": 0}, "steps_done": 0,
 "agents": {"calls": $((answers + 1)), "open": 1, "failed": 0, "lost": 0}}
JSON
SH
chmod +x stand-in/*
declare -A jobs
stand_in() { # NAME SBATCH ARGUMENTS...
    jobs[$1]=$(TREX=$PWD/stand-in/trex submit "${@:2}" "$root/slurm/search.sbatch" "$1")
}
expect_stand_in() { # NAME CODE RESTARTS STARTS
    expect_end "${jobs[$1]}" 90 "$2" "$3"
    [ "$(wc -l < "of-$1/starts")" = "$4" ] || lost "${jobs[$1]}" "$(wc -l < "of-$1/starts") starts, not $4"
}
for launcher in srun mpirun; do
    TREX_LAUNCH=$launcher stand_in $launcher --nodes=2 --ntasks-per-node=3 --cpus-per-task=2 --gpus-per-node=2
    expect_stand_in $launcher 0 0 1
    job=${jobs[$launcher]}
    for place in '0 on n1' '1 on n1' '2 on n1' '3 on n2' '4 on n2'; do
        says "$job" "^rank $place sees 0,1, 2 threads, passive"
    done
    says "$job" '^rank 0 has 14[0-9]{3} s, before it nothing' # of four hours
    [ "$(grep -c '^rank . on' trex-"$job".log)" = 5 ] || lost "$job" "not 5 ranks"
done
ok "with GPUs the first node has rank 0 and a worker a GPU, the others a worker a GPU; each sees all of its node"

# All of these at once. Ranks that die are started again; those that always die end the job, unless the search gets on
# between their deaths. A folder in use and a full disk are waited for, and are no deaths. None of these is requeued.
export TREX_TRIES=3 TREX_WAIT=3 TREX_STALLS=2
for name in dies gets_on hopeless taken kept full stays_full stalls asks; do
    stand_in $name --ntasks-per-node=2
done
unset TREX_TRIES TREX_WAIT TREX_STALLS
stand_in patient --ntasks-per-node=1
expect_stand_in dies 0 0 3
says "${jobs[dies]}" '^rank 0 has .*, before it code 139 \(SIGSEGV\)'
expect_stand_in hopeless 1 0 3
says "${jobs[hopeless]}" 'given up: 3 deaths in a row'
expect_stand_in gets_on 0 0 4
ok "ranks that die are started again; those that always die are given up, unless the search gets on"
expect_stand_in taken 0 0 3
expect_stand_in full 0 0 3
says "${jobs[full]}" '^rank 0 has .*, before it code 74'
expect_stand_in kept 75 0 3
says "${jobs[kept]}" 'given up: the run folder is still in use'
expect_stand_in stays_full 74 0 3
says "${jobs[stays_full]}" 'given up: the disk is full or refuses \(the run folder is of-stays_full\)'
job=${jobs[patient]}
wait_until "$job" 60 "it waits for longer" grep -q 'tried again in 8 s' "trex-$job.log"
signal_limit "$job"
wait_until "$job" 20 "it hears the time limit's signal at once" grep -q 'requeued, the next' "trex-$job.log"
scancel "$job"
ok "a run folder in use and a full disk are waited for: until that is over, for half an hour, or until the time limit"
expect_stand_in stalls 1 1 2
says "${jobs[stalls]}" 'given up: 2 allocations in a row have brought nothing forward'
expect_stand_in asks 0 2 3
ok "allocations that bring nothing forward come to an end"

# A wrong job file, no job file, a program that is not there.
sed 's/"metric": "accuracy"/"metric": "luck"/' job.json > wrong.json
expect_end "$(submit --ntasks-per-node=2 "$root/slurm/search.sbatch" wrong.json)" 60 2 0
expect_end "$(submit --ntasks-per-node=2 "$root/slurm/search.sbatch")" 60 2 0
expect_end "$(TREX=/nowhere/trex submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json)" 60 2 0
expect_end "$(TREX_HOME=/nowhere submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json)" 60 2 0
ok "what cannot succeed ends with 2 and is not requeued"

# A search by chain: the second job goes on where the first stopped, the others are cancelled.
sed 's/"rounds": 2/"rounds": 5000/; s/"steps": 40/"steps": 240/' job.json > longer.json
"$root/slurm/chain" 4 --nodes=1 --ntasks-per-node=2 "$root/slurm/search.sbatch" longer.json --out chained > chain.txt
set -- $(grep -oE '[0-9]+$' chain.txt)
[ $# -ge 4 ] || { cat chain.txt; die "the chain did not submit 4 jobs"; }
wait_until "$1" 60 "a candidate has finished" finished_more_than chained 1
signal_limit "$1"
expect_end "$1" 60 85 0
let_end chained
expect_end "$2" 120 0 0
says "$2" 'resuming'
expect_end "$3" 20 0 0
expect_end "$4" 20 0 0
[ "$(field "$3" JobState)$(field "$4" JobState)" = CANCELLEDCANCELLED ] || lost "$3" "not cancelled"
each_finished_once chained
ok "a chain goes on, and ends when the search does"

# Two searches as an array; a task without a job file says so.
cp job.json second.json
array=$(submit --array=1-3 --ntasks-per-node=1 "$root/slurm/array.sbatch" job.json second.json --out many)
wait_until "$array" 120 "the array's end" eval "[ -z \"\$(squeue -h -j $array 2> /dev/null)\" ]"
for name in job second; do
    expect 0 'finished' "$tree" status many/$name
done
grep -q 'task 3: only 2 job files' "trex-${array}_3.log" || die "task 3 does not say that there is no file for it"
ok "an array runs one search a job file"

# scancel: the ranks save their state, the job is not requeued, and the next one goes on.
job=$(submit --ntasks-per-node=2 "$root/slurm/search.sbatch" longer.json --out cancelled)
wait_until "$job" 60 "a candidate has finished" finished_more_than cancelled 1
kept=$(finished cancelled)
scancel "$job"
wait_until "$job" 60 "its end" is_over "$job"
wait_until "$job" 20 "the ranks' end" eval '[ -z "$(squeue -h -t completing)" ]'
says "$job" 'told to stop \(end\)'
says "$job" 'the ranks ended [0-9]+ s after that, with code 85' # and none has lost its state by SIGTERM
[ "$(field "$job" Restarts)" = 0 ] || lost "$job" "requeued after scancel"
expect 0 '' "$tree" verify cancelled
let_end cancelled
expect_end "$(submit --ntasks-per-node=2 "$root/slurm/search.sbatch" longer.json --out cancelled)" 120 0 0
[ -z "$(comm -23 <(echo "$kept") <(finished cancelled))" ] || die "scancel lost candidates"
ok "a cancelled job is not requeued and loses nothing"
echo "$passed passed, 0 failed"
