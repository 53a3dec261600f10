# What the batch scripts of this folder share; they source it. It is a search's life within one allocation: start the
# ranks, pass the signal before the time limit on to them, and see to it that the search goes on until it has ended.
#
#   trex_search JOB [--out DIR]    runs the search and ends the script
#
# Settings, all from the environment (export them before sbatch):
#   TREX_HOME     this repository's folder, where the job is not submitted from it
#   TREX          the program; without it $TREX_HOME/build/trex, else trex on the PATH (trex-tree lies beside it)
#   TREX_LAUNCH   srun or mpirun; without it srun where Slurm has the plugin that the program's MPI needs, else mpirun
#   TREX_TRIES    how often ranks that died soon after their start are started again in one allocation (4)
#   TREX_WAIT     seconds to wait for a run folder that another job still uses (1800)
#   TREX_CHAIN    set by slurm/chain: never requeue, the next job of the chain goes on

say() { echo "trex: $(date -u +%FT%TZ) $*"; }

# ---- what to run --------------------------------------------------------------------------------------------------

find_programs() {
    trex=${TREX:-${TREX_HOME:-$SLURM_SUBMIT_DIR}/build/trex}
    [ -n "${TREX-}" ] || [ -x "$trex" ] || trex=$(command -v trex || echo "$trex")
    [ -x "$trex" ] || { say "no program at $trex: build it (INSTALL), or set TREX"; exit 2; }
    tree=$(dirname "$trex")/trex-tree
}

# The run folder: --out, or the job's "output" with ${NAMES} from the environment; "" if the job does not say.
find_folder() { # JOB [--out DIR]
    local job=''
    folder=
    while [ $# -gt 0 ]; do
        case $1 in
            --out) folder=${2-}; shift ;;
            --out=*) folder=${1#--out=} ;;
            -*) ;;
            *) job=$1 ;;
        esac
        [ $# = 0 ] || shift
    done
    [ -z "$folder" ] || return 0
    folder=$(sed -n 's/.*"output"[[:space:]]*:[[:space:]]*"\([^"\\]*\)".*/\1/p' "$job" 2> /dev/null | head -n 1)
    while [[ $folder =~ ^(.*)\$\{([A-Za-z_][A-Za-z0-9_]*)\}(.*)$ ]]; do
        folder=${BASH_REMATCH[1]}${!BASH_REMATCH[2]-}${BASH_REMATCH[3]}
    done
}

# ---- how to start it ----------------------------------------------------------------------------------------------

# Where every rank goes, if that matters: on several nodes with GPUs, or with several ranks a candidate (align_workers).
# The first node takes rank 0 beside its workers, the others as many workers: no GPU has two ranks, no group of ranks is
# cut by a node's edge. Sets ranks, and places to one host a rank ("" leaves it to Slurm).
place_ranks() {
    local host workers k
    ranks=$SLURM_NTASKS
    places=
    workers=$((${SLURM_NTASKS_PER_NODE:-1} - 1))
    if [ "$SLURM_JOB_NUM_NODES" = 1 ] || [ $workers -lt 1 ] || [ -z "${SLURM_GPUS_ON_NODE-}${align_workers-}" ]; then
        return
    fi
    for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
        for ((k = 0; k < workers; k++)); do
            places+=,$host
        done
        [ "$host" != "$SLURMD_NODENAME" ] || places=,$host$places
    done
    places=${places#,}
    ranks=$((workers * SLURM_JOB_NUM_NODES + 1))
    unset SLURM_NTASKS_PER_NODE # it no longer holds, and srun would say so
}

# The plugins with which srun could start the program's MPI, best first.
plugins_wanted() {
    case $("$trex" version 2> /dev/null) in
        *'Open MPI'*) echo pmix ;;
        *CRAY*) echo cray_shasta pmi2 ;;
        *) echo pmi2 pmix ;;
    esac
}

# Whether a plugin is listed and loads: a step of one task that does nothing tells.
plugin_works() { # PLUGIN
    srun --mpi=list 2>&1 | grep -qw "$1" &&
        srun --mpi="$1" --nodes=1 --ntasks=1 true > /dev/null 2>&1
}

# Sets launch to the command before the program's name.
choose_launcher() {
    local name plugin=
    if [ "${TREX_LAUNCH:-srun}" = srun ]; then
        for name in $(plugins_wanted); do
            ! plugin_works "$name" || { plugin=$name; break; }
        done
    fi
    if [ -z "$plugin" ] && [ "${TREX_LAUNCH-}" = srun ]; then
        say "srun has no plugin that works for this MPI (wanted: $(plugins_wanted)); TREX_LAUNCH=mpirun may do"
        exit 2
    fi
    if [ -n "$plugin" ]; then
        launch=(srun "--mpi=$plugin" --kill-on-bad-exit=1 "--ntasks=$ranks" "--cpus-per-task=$OMP_NUM_THREADS")
        [ -z "$places" ] || launch+=(--distribution=arbitrary "--nodelist=$places")
    else
        command -v mpirun > /dev/null || { say "neither srun nor an mpirun on the PATH can start the ranks"; exit 2; }
        launch=(mpirun -n "$ranks")
        [[ $(mpirun --version) != *'Open MPI'* ]] || launch+=(--bind-to none)
        [ -z "$places" ] || launch+=(-H "$places")
    fi
    say "starts $ranks ranks on $SLURM_JOB_NUM_NODES node(s) by ${launch[0]}${plugin:+ --mpi=$plugin}," \
        "$OMP_NUM_THREADS thread(s) a rank, ${SLURM_GPUS_ON_NODE:-no} GPUs a node"
}

# When the allocation ends, in seconds of the clock: after a stop the ranks wait for each other no longer than that.
find_deadline() {
    local at=${SLURM_JOB_END_TIME:+@$SLURM_JOB_END_TIME}
    at=${at:-$(timeout 10 squeue -h -j "$SLURM_JOB_ID" -o %e 2> /dev/null)}
    TREX_DEADLINE=$([ -z "$at" ] || date -d "$at" +%s 2> /dev/null) # none where there is no limit
    export TREX_DEADLINE
}

# ---- where it stands ----------------------------------------------------------------------------------------------

ended() { # the run folder says so; where it is not known, an exit code of 0 has to do
    [ -z "$folder" ] || [ ! -x "$tree" ] ||
        "$tree" status "$folder" --json 2> /dev/null | grep -q '"condition":[[:space:]]*"finished"'
}

# Progress as the job's comment: squeue -o '%i %T %k', or scontrol show job.
write_comment() {
    local status words=
    [ -n "$folder" ] || return 0
    status=$("$tree" status "$folder" --json 2> /dev/null | tr -d '\t\n')
    if [[ $status =~ \"closed\":([0-9]+),\"failed\":([0-9]+),\"open\":[0-9]+,\"planned\":([0-9]+) ]]; then
        words="$((BASH_REMATCH[1] + BASH_REMATCH[2])) of ${BASH_REMATCH[3]} rounds"
    fi
    if [[ $status =~ \"best\":\"(n[0-9]+-c[0-9]+)\",\"best_validation\":\{\"value\":([0-9.e-]+) ]]; then
        words+=", best ${BASH_REMATCH[1]} $(LC_ALL=C printf %.4f "${BASH_REMATCH[2]}")"
    fi
    [ -z "$words" ] || timeout 30 scontrol update "JobId=$SLURM_JOB_ID" "Comment=trex $words" > /dev/null 2>&1 || true
}

keep_comment() {
    sleep 30
    while :; do
        write_comment
        sleep 300
    done
}

# ---- how it ends --------------------------------------------------------------------------------------------------

# No allocation is needed any more, nor the rest of a chain.
end_here() { # CODE
    write_comment
    [ -z "${TREX_CHAIN-}" ] ||
        scancel --user="$SLURM_JOB_USER" --name="$SLURM_JOB_NAME" --state=PENDING || true
    exit "$1"
}

# The search is not done: another allocation goes on, by requeue or as the next job of a chain.
go_on_later() {
    write_comment
    if [ -n "${TREX_CHAIN-}" ]; then
        say "stopped; the next job of the chain goes on"
        exit 85
    fi
    say "stopped; requeued, the next allocation goes on"
    while :; do
        ! scontrol requeue "$SLURM_JOB_ID" || exec sleep 600 # the requeue ends this script; nothing of it must run then
        ! scontrol ping 2> /dev/null | grep -qw UP || break  # refused; else nobody has heard it
        sleep 10
    done
    say "this cluster does not requeue the job: submit it again, or use slurm/chain"
    exit 85
}

# ---- the allocation -----------------------------------------------------------------------------------------------

# Slurm signals this script alone; the ranks get USR1, whichever it was, and save their state at the next step.
stop_ranks() { # limit: go on in another allocation; end: somebody cancelled the job
    local left
    stop=$1
    woken=yes
    stopped_s=$SECONDS
    nudge_ranks
    left=$(timeout 10 squeue -h -j "$SLURM_JOB_ID" -o %L 2> /dev/null || echo unknown)
    say "told to stop ($1); left of the time limit: ${left/INVALID/nothing}"
}

# TERM comes from scancel, and at the time limit where the margin before it was too short. Then too the search goes on,
# even if the ranks do not end in the seconds (KillWait) that are left until all is killed.
on_term() {
    local seconds
    if ! timeout 10 scontrol show job "$SLURM_JOB_ID" 2> /dev/null | grep -q 'Reason=TimeLimit'; then
        stop_ranks end
        return
    fi
    stop_ranks limit
    [ -z "${TREX_CHAIN-}" ] || return 0
    seconds=$(scontrol show config | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
    (sleep $((${seconds:-30} * 2 / 3)); scontrol requeue "$SLURM_JOB_ID") &
}

# Again and again: a signal that comes while the ranks are being started can be lost.
nudge_ranks() {
    [ -z "$running" ] || (while kill -USR1 "$running" 2> /dev/null; do sleep 10; done) &
}

# Starts the ranks and waits for them, also through signals. Sets code.
run_ranks() { # JOB [--out DIR]
    "${launch[@]}" "$trex" search "$@" < /dev/null &
    running=$!
    [ -z "$stop" ] || nudge_ranks # the signal came in between
    while :; do
        woken=
        wait "$running"
        code=$?
        [ -n "$woken" ] || break
    done
    running=
    [ -z "$stop" ] || say "the ranks ended $((SECONDS - stopped_s)) s after that, with code $code"
}

obey_stop() {
    case $stop in
        limit) go_on_later ;;
        end) exit 85 ;;
    esac
}

# A sleep that ends when a signal comes.
doze() { # SECONDS
    local nap
    sleep "$1" &
    nap=$!
    wait $nap || kill $nap 2> /dev/null || true
}

# The folder's old job may still be ending, after a requeue above all. Later and later, at most every 30 s.
wait_for_folder() {
    if [ $((SECONDS - folder_s)) -ge "${TREX_WAIT:-1800}" ]; then
        say "given up: the run folder is still in use"
        exit 75
    fi
    say "the run folder is in use; tried again in $folder_nap s"
    doze $folder_nap
    folder_nap=$((folder_nap < 15 ? folder_nap * 2 : 30))
    tries=$((tries - 1))
}

trex_search() { # JOB [--out DIR]
    set -u
    local stop='' running='' woken='' code=0 stopped_s=0 begun_s tries=0 folder_s=$SECONDS folder_nap=2
    [ $# -ge 1 ] || { say "no job file: sbatch slurm/search.sbatch jobs/my.json [--out DIR]"; exit 2; }
    trap 'stop_ranks limit' USR1
    trap on_term TERM
    cd "$SLURM_SUBMIT_DIR" || exit 1
    say "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, allocation $((${SLURM_RESTART_COUNT:-0} + 1))"
    # Ranks that wait must not spin on cores that others train on; OpenMP reads this before the program begins.
    export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1
    export SLURM_EXPORT_ENV=ALL
    find_programs
    find_folder "$@"
    place_ranks
    choose_launcher
    find_deadline
    keep_comment &
    trap "kill $! 2> /dev/null" EXIT
    while [ $((tries += 1)) -le "${TREX_TRIES:-4}" ]; do
        obey_stop
        begun_s=$SECONDS
        run_ranks "$@"
        case $code in
            0) ! ended || end_here 0 ;; # srun also ends with 0 when it could start nothing
            2) say "the job or its data are wrong: not requeued"; end_here 2 ;;
            75) wait_for_folder; continue ;;
            85) stop=${stop:-limit} ;; # stopped by another's signal
        esac
        obey_stop
        [ $((SECONDS - begun_s)) -lt 600 ] || tries=0
        folder_s=$SECONDS
        say "the ranks ended with code $code; what is on disk goes on (try $tries)"
        doze $((tries * tries)) # what is left of them may need a moment to end
    done
    say "given up: the ranks keep dying soon after their start"
    exit 1
}
