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

# Where each rank goes and what it sees, told by a program that stands in for trex.
mkdir stand-in
cat > stand-in/trex <<'SH'
#!/bin/sh
[ "$1" = version ] && { echo "Open MPI"; exit 0; }
echo "rank $PMIX_RANK on $SLURMD_NODENAME sees ${CUDA_VISIBLE_DEVICES-}, $OMP_NUM_THREADS threads, $OMP_WAIT_POLICY"
[ "$PMIX_RANK" != 0 ] || echo "rank 0 has $((TREX_DEADLINE - $(date +%s))) s"
case $3 in
    dies) # the first two times
        if [ "$PMIX_RANK" = 0 ]; then
            echo died >> deaths
            [ "$(wc -l < deaths)" -gt 2 ] || kill -SEGV $$
        fi
        until [ "$(wc -l < deaths)" -gt 2 ]; do sleep 0.1; done ;;
    hopeless) exit 1 ;;
    taken) # by another job, which ends after a while
        [ "$PMIX_RANK" = 0 ] || exit 0
        echo taken >> takings
        [ "$(wc -l < takings)" -gt 2 ] || exit 75 ;;
    kept) exit 75 ;;
esac
SH
chmod +x stand-in/trex
for launcher in srun mpirun; do
    job=$(TREX=$PWD/stand-in/trex TREX_LAUNCH=$launcher sbatch --parsable --nodes=2 --ntasks-per-node=3 \
        --cpus-per-task=2 --gpus-per-node=2 "$root/slurm/search.sbatch" none.json)
    expect_end "$job" 60 0 0
    for place in '0 on n1' '1 on n1' '2 on n1' '3 on n2' '4 on n2'; do
        says "$job" "^rank $place sees 0,1, 2 threads, passive"
    done
    says "$job" '^rank 0 has 14[0-9]{3} s' # of four hours
    [ "$(grep -c '^rank . on' trex-"$job".log)" = 5 ] || lost "$job" "not 5 ranks"
done
ok "with GPUs the first node has rank 0 and a worker a GPU, the others a worker a GPU; each sees all of its node"

# Ranks that die are started again; those that always die end the job. Neither is requeued.
job=$(TREX=$PWD/stand-in/trex submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json dies)
other=$(TREX=$PWD/stand-in/trex TREX_TRIES=2 submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json hopeless)
expect_end "$job" 60 0 0
[ "$(wc -l < deaths)" = 3 ] || lost "$job" "$(wc -l < deaths) starts, not 3"
expect_end "$other" 60 1 0
says "$other" 'given up'
ok "ranks that die are started again, those that always die are given up"

# A folder in use is waited for, for a while; neither counts as a try.
export TREX=$PWD/stand-in/trex
job=$(TREX_TRIES=1 submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json taken)
other=$(TREX_WAIT=3 submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json kept)
third=$(submit --ntasks-per-node=1 "$root/slurm/search.sbatch" job.json kept)
export TREX=$trex
expect_end "$job" 60 0 0
[ "$(wc -l < takings)" = 3 ] || lost "$job" "$(wc -l < takings) starts, not 3"
expect_end "$other" 60 75 0
says "$other" 'given up: the run folder is still in use'
wait_until "$third" 60 "it waits for longer" grep -q 'tried again in 8 s' "trex-$third.log"
signal_limit "$third"
wait_until "$third" 5 "it hears the time limit's signal at once" grep -q 'requeued, the next' "trex-$third.log"
scancel "$third"
ok "a run folder in use is waited for, until it is free, for half an hour, or until the time limit"

# A wrong job file, no job file, a program that is not there.
sed 's/"metric": "accuracy"/"metric": "luck"/' job.json > wrong.json
expect_end "$(submit --ntasks-per-node=2 "$root/slurm/search.sbatch" wrong.json)" 60 2 0
expect_end "$(submit --ntasks-per-node=2 "$root/slurm/search.sbatch")" 60 2 0
expect_end "$(TREX=/nowhere/trex submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json)" 60 2 0
expect_end "$(TREX_HOME=/nowhere submit --ntasks-per-node=2 "$root/slurm/search.sbatch" job.json)" 60 2 0
ok "what cannot succeed ends with 2 and is not requeued"

# A search by chain: the second job goes on where the first stopped, the others are cancelled.
sed 's/"rounds": 2/"rounds": 8/; s/"steps": 40/"steps": 240/' job.json > longer.json
"$root/slurm/chain" 4 --nodes=1 --ntasks-per-node=2 "$root/slurm/search.sbatch" longer.json --out chained > chain.txt
set -- $(grep -oE '[0-9]+$' chain.txt)
[ $# -ge 4 ] || { cat chain.txt; die "the chain did not submit 4 jobs"; }
wait_until "$1" 60 "a candidate has finished" finished_more_than chained 1
signal_limit "$1"
expect_end "$1" 60 85 0
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
wait_until "$array" 120 "the array's end" eval "! squeue -h -j $array 2> /dev/null | grep -q ."
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
wait_until "$job" 20 "the ranks' end" eval '! squeue -h -t completing | grep -q .'
says "$job" 'told to stop \(end\)'
says "$job" 'the ranks ended [0-9]+ s after that, with code 85' # and none has lost its state by SIGTERM
[ "$(field "$job" Restarts)" = 0 ] || lost "$job" "requeued after scancel"
expect 0 '' "$tree" verify cancelled
expect_end "$(submit --ntasks-per-node=2 "$root/slurm/search.sbatch" longer.json --out cancelled)" 120 0 0
[ -z "$(comm -23 <(echo "$kept") <(finished cancelled))" ] || die "scancel lost candidates"
ok "a cancelled job is not requeued and loses nothing"
echo "$passed passed, 0 failed"
