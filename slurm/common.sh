# What the batch scripts of this folder share; they source it. It is a search's life within one allocation: start the
# ranks, pass the signal before the time limit on to them, and see to it that the search goes on until it has ended.
#
#   trex_search JOB [--out DIR]      runs the search and ends the script
#   trex_prefetch JOB [--out DIR]    brief, literature and data before it, on a node that has a network
#
# Settings, all from the environment (export them before sbatch):
#   TREX_HOME     this repository's folder, where the job is not submitted from it
#   TREX          the program; without it $TREX_HOME/build/trex, else trex on the PATH (trex-tree lies beside it)
#   TREX_LAUNCH   srun or mpirun; without it srun where Slurm has the plugin that the program's MPI needs, else mpirun
#   TREX_TRIES    how many deaths in a row, with no progress between them, end the job (4)
#   TREX_STALLS   how many allocations in a row that bring nothing forward end the job (3)
#   TREX_WAIT     seconds to wait for a disk that is full, or a run folder that another job still uses (1800)
#   TREX_CHAIN    set by slurm/chain: never requeue, the next job of the chain goes on

say() { echo "trex: $(date -u +%FT%TZ) $*"; }

# ---- what to run --------------------------------------------------------------------------------------------------

find_programs() {
    trex=${TREX:-${TREX_HOME:-$SLURM_SUBMIT_DIR}/build/trex}
    [ -n "${TREX-}" ] || [ -x "$trex" ] || trex=$(command -v trex || echo "$trex")
    [ -x "$trex" ] || { say "no program at $trex: build it (INSTALL), or set TREX"; exit 2; }
    tree=$(dirname "$trex")/trex-tree
}

# The run folder, as the program finds it; "" if the job is wrong or the program does not start here.
find_folder() { # JOB [--out DIR]
    local job='' out=()
    while [ $# -gt 0 ]; do
        case $1 in
            --out) out=(--out "${2-}"); [ $# = 1 ] || shift ;;
            --out=*) out=("$1") ;;
            -*) ;;
            *) job=${job:-$1} ;;
        esac
        shift
    done
    folder=$(timeout 60 "$trex" check "$job" "${out[@]}" --output-folder 2> /dev/null) || folder=
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
        # When a rank has died, rank 0 gets SIGTERM and writes down which: it needs more than the second that is usual.
        export OMPI_MCA_odls_base_sigkill_timeout=4 PRTE_MCA_odls_base_sigkill_timeout=4
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

# Sets status to what the run folder says, in one line; "" if it cannot be read.
read_status() {
    status=
    [ -z "$folder" ] || status=$(timeout 60 "$tree" status "$folder" --json 2> /dev/null | tr -d '\t\n')
}

ended() { # the run folder says so; where it is not known, an exit code of 0 has to do
    local status
    read_status
    [ -z "$status" ] || [[ $status =~ \"condition\":\"(finished|halted)\" ]]
}

# Whether a halt has ended the ranks just started, whatever their code: those that were not waited for are aborted.
halted() {
    local status
    read_status
    [[ $status =~ \"condition\":\"halted\" ]] &&
        [[ $status =~ \"last_write_age_seconds\":([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -le $((SECONDS - started_s)) ]
}

# What is done for good, as "DONE STEPS SAVED": rounds planned or closed, candidates that have ended and agents' questions
# that were answered, training steps, and when a training's state was last saved, which the tree does not hear of before
# that training stops. "" if nobody can tell.
progress() {
    local agents='"agents":[{]"calls":([0-9]+),"open":([0-9]+),"failed":([0-9]+),"lost":([0-9]+)'
    local status done_for_good steps saved
    read_status
    if [[ $status =~ \"rounds\":\{\"closed\":([0-9]+),\"failed\":([0-9]+),\"open\":([0-9]+) ]]; then
        done_for_good=$((2 * (BASH_REMATCH[1] + BASH_REMATCH[2]) + BASH_REMATCH[3]))
        [[ $status =~ \"suspended\":[0-9]+,\"finished\":([0-9]+),\"failed\":([0-9]+) ]] || return 0
        done_for_good=$((done_for_good + BASH_REMATCH[1] + BASH_REMATCH[2]))
        [[ $status =~ \"steps_done\":([0-9]+) ]] || return 0
        steps=${BASH_REMATCH[1]}
        if [[ $status =~ $agents ]]; then
            done_for_good=$((done_for_good + BASH_REMATCH[1] - BASH_REMATCH[2] - BASH_REMATCH[3] - BASH_REMATCH[4]))
        fi
        saved=$(stat -c %Y "$folder"/inflight/*.h5 2> /dev/null | sort -n | tail -n 1)
        echo "$done_for_good $steps ${saved:-0}"
    elif [ -n "$folder" ] && [ ! -e "$folder/run.h5" ] && [ ! -e "$folder/journal.jsonl" ]; then
        echo "0 0 0"
    fi
}

# Whether one of the first COUNT figures of progress has grown.
got_on() { # BEFORE NOW COUNT
    local old new i
    read -ra old <<< "$1"
    read -ra new <<< "$2"
    for ((i = 0; i < $3; i++)); do
        [ "${new[i]:-0}" -le "${old[i]:-0}" ] || return 0
    done
    return 1
}

# Progress as the job's comment: squeue -o '%i %T %k', or scontrol show job.
write_comment() {
    local status words=
    read_status
    if [[ $status =~ \"closed\":([0-9]+),\"failed\":([0-9]+),\"open\":[0-9]+,\"planned\":([0-9]+) ]]; then
        words="$((BASH_REMATCH[1] + BASH_REMATCH[2])) of ${BASH_REMATCH[3]} rounds"
    fi
    if [[ $status =~ \"best\":\"(n[0-9]+-c[0-9]+)\",\"best_validation\":\{\"value\":([0-9.e-]+) ]]; then
        words+=", best ${BASH_REMATCH[1]} $(LC_ALL=C printf %.4f "${BASH_REMATCH[2]}")"
    fi
    [ -z "$words" ] || timeout 30 scontrol update "JobId=$SLURM_JOB_ID" "Comment=trex $words" > /dev/null 2>&1 || true
}

# How long it took until all was safe, and how long the program had thought it would: the margin must be longer.
tell_margin() {
    local status
    read_status
    if [[ $status =~ \"predicted_s\":([0-9.e+-]+),\"safe_s\":([0-9.e+-]+)\}\],\"incidents\" ]]; then # of the last
        LC_ALL=C printf -v status '%.1f s after the signal; %.1f s were foreseen' "${BASH_REMATCH[2]}" "${BASH_REMATCH[1]}"
        say "all was safe $status"
    fi
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
    [ "$1" != 0 ] || [ -z "$folder" ] || timeout 60 "$tree" status "$folder" --accounting 2> /dev/null || true
    [ -z "${TREX_CHAIN-}" ] ||
        scancel --user="$SLURM_JOB_USER" --name="$SLURM_JOB_NAME" --state=PENDING || true
    exit "$1"
}

# An allocation that brings nothing forward, because the time limit or the margin before it is too short, would be
# followed by others for ever. The run folder remembers how many there were in a row, and what was done by then.
another_is_worth_it() {
    local now before='' stalls=0 known=3
    now=$(progress)
    [ -n "$now" ] || return 0
    [ "$code" != 85 ] || known=2 # after an orderly stop the tree knows of all that was saved
    { read -r stalls before < "$folder/stalls"; } 2> /dev/null || stalls=0
    [[ $stalls =~ ^[0-9]{1,4}$ ]] || stalls=0
    stalls=$((stalls + 1))
    ! got_on "$before" "$now" $known || stalls=0
    if [ $stalls -ge "${TREX_STALLS:-3}" ]; then
        rm -f "$folder/stalls"
        say "given up: $stalls allocations in a row have brought nothing forward, because the time limit is too short" \
            "for a part of this search that cannot be cut, or the margin before it (--signal) too short to save its" \
            "state, or longer than the limit; what is done is safe: give it more time and submit it again"
        return 1
    fi
    mkdir -p "$folder" 2> /dev/null
    { echo "$stalls $now" > "$folder/stalls"; } 2> /dev/null ||
        { say "given up: nothing can be written to $folder; what is done is safe: submit it again later"; return 1; }
}

# The search is not done: another allocation goes on, by requeue or as the next job of a chain.
go_on_later() {
    write_comment
    another_is_worth_it || end_here 1
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
    (sleep $((${seconds:-30} * 2 / 3)); ! another_is_worth_it || scontrol requeue "$SLURM_JOB_ID") &
}

# Again and again: a signal that comes while the ranks are being started can be lost.
nudge_ranks() {
    [ -z "$running" ] || (while kill -USR1 "$running" 2> /dev/null; do sleep 10; done) &
}

# Starts the ranks and waits for them, also through signals. Sets code.
run_ranks() { # JOB [--out DIR]
    started_s=$SECONDS
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
    [ -n "$stop" ] || return 0
    say "the ranks ended $((SECONDS - stopped_s)) s after that, with code $code"
    tell_margin
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

# What may pass by itself. Tried again later and later, at most every 30 s, for TREX_WAIT seconds.
wait_a_while() { # WHAT
    if [ "$waited" -ge "${TREX_WAIT:-1800}" ]; then
        say "given up: $1"
        exit "$code"
    fi
    say "$1; tried again in $nap s"
    doze "$nap"
    waited=$((waited + nap))
    nap=$((nap < 15 ? nap * 2 : 30))
}

# The old job may still be ending, after a requeue above all. As long as another job gets on, this one is not needed.
wait_for_folder() {
    wait_a_while "the run folder is still in use"
}

# Somebody may make room, or the file system may come back. What got on since the last time is worth a new wait.
wait_for_disk() {
    local now
    now=$(progress)
    ! got_on "$done_before" "$now" 3 || { waited=0; nap=2; }
    done_before=${now:-$done_before}
    wait_a_while "the disk is full or refuses (the run folder is $folder)"
}

# Ranks that died are started again; those that always die are not.
try_again() {
    local now
    now=$(progress)
    ! got_on "$done_before" "$now" 3 || tries=0
    done_before=${now:-$done_before}
    waited=0
    nap=2
    tries=$((tries + 1))
    if [ "$tries" -ge "${TREX_TRIES:-4}" ]; then
        say "the ranks ended with code $code; given up: $tries deaths in a row, and the search did not get on"
        exit 1
    fi
    say "the ranks ended with code $code; what is on disk goes on (try $tries)"
    [ "$tries" = 1 ] || doze $((tries < 6 ? tries * tries : 30)) # a death without progress: what caused it may pass
}

# How the ranks ended, in words: the next start writes it into the tree.
remember_end() {
    local signal=
    [ "$code" -le 128 ] || signal=$(kill -l $((code - 128)) 2> /dev/null) || signal=
    export TREX_PREVIOUS="code $code${signal:+ (SIG$signal)}"
}

trex_search() { # JOB [--out DIR]
    set -u
    local stop='' running='' woken='' code=0 started_s=0 stopped_s=0 tries=0 done_before='' waited=0 nap=2
    unset TREX_PREVIOUS
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
    while :; do
        obey_stop
        run_ranks "$@"
        case $code in
            0) ! ended || end_here 0 ;; # srun also ends with 0 when it could start nothing
            2) say "the job or its data are wrong: not requeued"; end_here 2 ;;
            74 | 75) ;;
            85) stop=${stop:-limit} ;; # stopped by another's signal
            *) ! halted || end_here 0 ;;
        esac
        obey_stop
        case $code in
            74) remember_end; wait_for_disk ;;
            75) wait_for_folder ;;
            *) remember_end; try_again ;;
        esac
    done
}

# It becomes the program, which the signal before the time limit stops: what is there by then stays.
trex_prefetch() { # JOB [--out DIR]
    set -u
    [ $# -ge 1 ] || { say "no job file: sbatch slurm/prefetch.sbatch jobs/my.json [--out DIR]"; exit 2; }
    cd "$SLURM_SUBMIT_DIR" || exit 1
    find_programs
    find_deadline
    exec "$trex" prefetch "$@"
}
