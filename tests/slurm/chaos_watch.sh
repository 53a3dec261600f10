# What chaos sees of a search, and the promises that it checks. Sourced by chaos.
#
# The logs are read as they grow: each TREX_FAULT that strikes, each start of the ranks, each sign of training. A fault
# goes from begin_strike (its time; into the queue) to examine (losses, checks) to the next sign of training.

: > finished.txt
struck=0         # faults so far; each has what, words, at_s, ends, work_s, time_s
queue=()         # faults that were not examined yet
examined=()      # faults of which the tree was not yet asked what it tells of them
open_faults=()   # faults after which no training was seen yet
trained=no       # whether somebody trains
resumed=yes      # whether the search was opened since the last fault that ended the ranks
start=           # of the ranks: Slurm job, restart, step
start_s=0
log_start=       # that the line of the job's log belongs to which was read last
refused=no       # whether ranks found the folder in use since the last fault
damaged=         # a file that was damaged on purpose and is not replaced yet
declare -A starts_s # when each start was
declare -A what words of_start of_start_s at_s ends work_s time_s stuck deaths incidents_before
sampling_s=0.2
save_s=0.5        # that a save takes on a busy machine, while the training goes on; what it holds is safe when it is synced
poll_s=0.05
beyond=0          # candidates that seemed to lose more than a checkpoint interval
turns=0           # of poll

exec {quiet}<> <(:)
nap() { read -rt "$1" -u "$quiet" || true; } # SECONDS; a sleep that is no process

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
seconds() { awk "BEGIN { printf \"%.2f\", $* }"; }
before() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }
larger() { awk -v a="$1" -v b="$2" 'BEGIN { print (a + 0 > b + 0 ? a : b) }'; }

violation() { # WORDS...
    echo "VIOLATION after $struck faults (seed $seed): $*"
    for ((i = struck > 6 ? struck - 6 : 0; i < struck; i++)); do
        echo "  fault $((i + 1)) at ${at_s[$i]}: ${what[$i]}, ${words[$i]}"
    done
    echo "--- the job says"
    tail -n 40 job.log || true
    echo "--- the search says"
    tail -n 30 "$run/log.jsonl" || true
    echo "--- the folder holds"
    ls -laR "$run" | head -n 40 || true
    echo "--- again: KEEP=1 tests/slurm/chaos $build $faults $seed"
    exit 1
}

# ---- ranks --------------------------------------------------------------------------------------------------------

rank_list() { # one a line: PID RANK START
    pgrep -af "^$trex\.[0-9]+\." | sed -nE "s|^([0-9]+) [^ ]*/trex\.([0-9]+)\.([0-9.]+) .*|\1 \2 \3|p" || true
}

# How much of a core's time each rank has had by now.
take_sample() { # [LIST of the ranks]
    local pid rank from stat
    while read -r pid rank from; do
        { [ -n "$pid" ] && read -r stat < "/proc/$pid/stat"; } 2> /dev/null || continue
        stat=(${stat##*) })
        echo "$EPOCHREALTIME $from $rank $((stat[11] + stat[12]))"
    done < <(printf '%s\n' "${1-$(rank_list)}") >> samples
}

# Ranks that train yield to everything else on this machine: what faults need is not how far a training gets.
yield_cores() { # LIST of the ranks
    local pid rank
    while read -r pid rank _; do
        [ "${rank:-0}" != 0 ] || continue
        turns_of[$pid]=$((${turns_of[$pid]:-0} + 1))
        [ ${turns_of[$pid]} != 5 ] || renice -n 10 -p "$pid" > /dev/null
    done <<< "$1"
}

# In the background: samples, and who was given which candidate.
watch_ranks() {
    local last=0 list
    declare -A turns_of
    set +e
    : > looked
    while :; do
        nap $sampling_s
        list=$(rank_list)
        take_sample "$list"
        yield_cores "$list"
        [ "$run/journal.jsonl" -nt looked ] || continue
        : > looked
        grep -h '"event":"candidate_started"' "$run/journal.jsonl" 2> /dev/null |
            sed -nE 's/.*"node":([0-9]+),"candidate":([0-9]+),"rank":([0-9]+),"sequence":([0-9]+),"time_s":([0-9.]+).*/\4 \1 \2 \3 \5/p' |
            awk -v last="$last" '$1 > last { printf "n%04d-c%d %d %f %d\n", $2, $3, $4, $5, $1 }' > fresh
        if [ -s fresh ]; then
            cat fresh >> given
            last=$(awk 'END { print $4 }' fresh)
        fi
    done
}

# Who has which candidate since the ranks' last start, one a line: NAME RANK SINCE. Clocks that a fault has moved by a
# day are moved back.
in_training() { # [SINCE: the ranks' last start]
    awk -v start="${1-$start_s}" -v now="$EPOCHREALTIME" -v finished="$(cut -d ' ' -f 1 finished.txt | tr '\n' ' ')" '
        { while ($3 > now + 43200) $3 -= 86400; while ($3 < now - 43200) $3 += 86400; rank[$1] = $2; since[$1] = $3 }
        END { split(finished, names, " "); for (i in names) delete since[names[i]]
            for (name in since) if (since[name] >= start) printf "%s %s %.6f\n", name, rank[name], since[name] }' given 2> /dev/null
}

saved_at() { stat -c %.Y "$run/inflight/$1.h5" 2> /dev/null || echo 0; } # NAME

# Candidates that died with their job twice and have saved nothing since: one more death and they may be set aside.
unsafe() {
    local name rank since count=0
    [[ " ${stuck[*]} " == *" "[2-9]* ]] || { echo 0; return; }
    while read -r name rank since; do
        [ "${stuck[$name]:-0}" -ge 2 ] && before "$(saved_at "$name")" "$since" && count=$((count + 1))
    done < <(in_training)
    echo $count
}

# ---- logs ---------------------------------------------------------------------------------------------------------

open_logs() {
    local i
    for ((i = 0; i < 3000; i++)); do
        [ ! -e job.log ] || [ ! -e "$run/log.jsonl" ] || break
        sleep 0.1
    done
    exec 7< job.log 8< "$run/log.jsonl" 9< starts
    held7='' held8='' held9=''
}

# Calls FUNCTION with each line that is complete since the last time.
read_lines() { # DESCRIPTOR FUNCTION
    local line='' held=held$1
    while IFS= read -r -u "$1" line; do
        line=${!held}$line
        printf -v "$held" %s ''
        "$2" "$line"
    done
    printf -v "$held" %s "${!held}$line"
}

on_job_line() {
    case $1 in
        *'chaos: start '*) log_start=${1#*chaos: start } ;;
        *'TREX_FAULT strikes: '*) armed_strike "${1#*TREX_FAULT strikes: }" ;;
        *'folder is in use'*) refused=yes ;;
        *'given up'*) violation "the job gave up" ;;
    esac
}

on_run_line() {
    local i
    case $1 in
        *'"message":"resuming '*) resumed=yes ;;
        *'"room":"train"'* | *'goes on at step'*)
            [ $resumed = yes ] || return 0
            trained=yes
            for i in "${open_faults[@]}"; do
                time_s[$i]=$(seconds "$EPOCHREALTIME - ${at_s[$i]}")
            done
            open_faults=() ;;
    esac
}

on_start() {
    [ $trained = no ] || violation "the ranks were started again, and no fault had ended them: $1"
    start_s=${1% *}
    start=${1#* }
    starts_s[$start]=$start_s
}

read_logs() {
    read_lines 9 on_start
    read_lines 8 on_run_line
    read_lines 7 on_job_line
}

poll() {
    nap $poll_s
    read_logs
    turns=$((turns + 1))
    [ $((turns % 40)) != 0 ] || [ -n "${ending-}" ] || ! is_over "$job" ||
        violation "the job has ended: $(field "$job" JobState)"
}

poll_until() { # SECONDS WHAT COMMAND...
    local left=$(($1 * 20)) event=$2
    shift 2
    until "$@"; do
        [ $((left -= 1)) -gt 0 ] || violation "waited in vain until $event"
        poll
    done
}

# ---- a fault ------------------------------------------------------------------------------------------------------

# It strikes now; ENDS: whether it ends the ranks; START: that it struck, which may be over when the log is read.
begin_strike() { # KIND ENDS WORDS [START]
    read_lines 9 on_start
    read_lines 8 on_run_line
    local struck_start=${4:-$start}
    if [ "$struck_start" = "$start" ]; then
        incidents_before[$struck]=$(incidents_seen)
    else # the next start may have told of it already
        incidents_before[$struck]=${incidents_before[$((struck - 1))]:-0}
    fi
    take_sample
    of_start[$struck]=$struck_start of_start_s[$struck]=${starts_s[$struck_start]:-$start_s}
    what[$struck]=$1 ends[$struck]=$2 words[$struck]=$3 at_s[$struck]=$EPOCHREALTIME
    queue+=("$struck")
    open_faults+=("$struck")
    echo "fault $((struck + 1)) ($(($(now_ms) / 1000 - began_ms / 1000)) s): $1, $3"
    struck=$((struck + 1))
    if [ "$2" = yes ] && [ "$struck_start" = "$start" ]; then
        trained=no
        resumed=no
        refused=no
    fi
}

ranks_gone() { # START
    [ "$start" != "$1" ] || ! grep -q " $1$" < <(rank_list)
}

examine_queue() {
    local i
    while [ ${#queue[@]} -gt 0 ]; do
        i=${queue[0]}
        queue=("${queue[@]:1}")
        if [ "${ends[$i]}" = yes ]; then
            poll_until 120 "the ranks end after a ${what[$i]}" ranks_gone "${of_start[$i]}"
        fi
        check_folder
        [ "${ends[$i]}" = no ] || [ -n "${work_s[$i]-}" ] || measure_loss "$i"
        examined+=("$i")
    done
}

incidents_seen() { "$tree" status "$run" --json | sed -nE 's/.*"incidents_seen":[[:space:]]*([0-9]+).*/\1/p'; }

more_incidents() { # COUNT
    local seen
    seen=$(incidents_seen)
    [ "${seen:-0}" -gt "$1" ]
}

# With the ranks at work again: the tree says what happened, and damaged files were replaced.
check_recovery() {
    local i left=1200
    for i in "${examined[@]}"; do # orders leave before the event is on disk
        [[ $told != *" ${what[$i]} "* ]] ||
            poll_until 60 "an incident tells of fault $((i + 1)), ${what[$i]}" more_incidents "${incidents_before[$i]}"
    done
    examined=()
    while [ -n "$damaged" ] && [ $trained = yes ]; do
        "$tree" verify "$run" > verify.txt 2>&1 && damaged='' && break
        grep -q "$damaged" verify.txt || violation "more than $damaged is not whole: $(cat verify.txt)"
        [ $((left -= 1)) -gt 0 ] || violation "$damaged is still damaged: $(cat verify.txt)"
        poll
    done
}

# Core seconds that a rank spent between two times. Between two samples it is taken to have worked evenly; what it did
# between the last one and its death is not seen: none where the fault was ours, else at most $sampling_s.
core_seconds() { # RANK FROM TO START
    tail -n 4000 samples | awk -v rank="$1" -v start="$4" -v from="$2" -v to="$3" '
        $2 != start || $3 != rank || $1 > to { next }
        n++ == 0 || $1 <= from { base = $4; t = $1; next_t = 0 }
        $1 > from && !next_t && n > 1 { next_t = $1; next_cpu = $4 }
        { last = $4 }
        END { if (next_t > t && t <= from) base += (next_cpu - base) * (from - t) / (next_t - t)
            printf "%.2f", n ? (last - base) / 100 : 0 }'
}

# The work of a fault that is lost: of each candidate what its rank did since the last save, or since it began.
measure_loss() { # FAULT
    local i=$1 name rank since saved base lost most=0
    while read -r name rank since; do
        saved=$(saved_at "$name")
        deaths[$name]=$((${deaths[$name]:-0} + 1))
        base=$(larger "$saved" "$since")
        if before "$saved" "$since"; then
            stuck[$name]=$((${stuck[$name]:-0} + 1))
        else
            stuck[$name]=0
        fi
        before "$base" "${at_s[$i]}" || continue
        lost=$(core_seconds "$rank" "$base" "${at_s[$i]}" "${of_start[$i]}")
        most=$(larger "$lost" "$most")
        before "$(seconds "$checkpoint_s + $aside_s + $save_s + 2 * $sampling_s")" "$lost" || continue
        # A sample that comes late on a busy machine counts what was before: once is told of, twice is a loss.
        beyond=$((beyond + 1))
        echo "  beyond a checkpoint interval: $name lost $lost s on rank $rank, begun $(seconds "${at_s[$i]} - $since") s before"
        [ "$beyond" -le 1 ] ||
            violation "$name lost $lost s of work on rank $rank, more than a checkpoint interval:" \
                "saved at $saved, begun at $since, fault at ${at_s[$i]}"
    done < <(in_training "${of_start_s[$i]}")
    work_s[$i]=$most
}

# ---- the folder ---------------------------------------------------------------------------------------------------

states() { # NAME STATE VALUE LOSS of each candidate that has an end, one a line
    "$tree" show "$run" --json | awk -F '\t' '
        /"node":/ { name = "" } # it has a state too
        /"name":/ { gsub(/[",]/, ""); name = $NF }
        /"state":/ { gsub(/[",]/, ""); state = $NF; if (state == "failed" && name) print name, state; }
        /"validation":/ { wanted = 1 }
        wanted && /"value":/ { gsub(/[",]/, ""); value = $NF }
        wanted && /"loss":/ { gsub(/[",]/, ""); if (state == "finished") print name, state, value, $NF; wanted = 0 }' | sort
}

# A candidate whose rank was killed under it twice, or that got no further in three deaths of the search, cannot be told
# from one that is to blame. It runs from its order on, which is before anything of it is seen here.
set_aside_by_rule() { # NAME
    [ "${stuck[$1]:-0}" -ge 3 ] ||
        { [ "$(grep -c "the search died .*running: .*$1" "$run/log.jsonl")" -ge 3 ] &&
            grep -q "\"$1  failed: its job died 3 times while it was running and got no further" "$run/log.jsonl"; } ||
        { [ "${deaths[$1]:-0}" -ge 2 ] && grep -q "\"$1  failed: it ended its rank 2 times" "$run/log.jsonl"; }
}

# The folder is whole, all that was finished is, once, and nothing failed but the poison.
check_folder() {
    local lost name
    if [ -z "$damaged" ]; then
        "$tree" verify "$run" > verify.txt 2>&1 || { cat verify.txt; violation "the folder is not whole"; }
    fi
    states > states.txt
    grep ' finished ' states.txt > finished.new || true
    lost=$(comm -23 finished.txt finished.new)
    [ -z "$lost" ] || violation "was finished, and is not so any more: $lost"
    mv finished.new finished.txt
    each_finished_once "$run"
    for name in $(awk '$2 == "failed" { print $1 }' states.txt); do
        [ "$name" = "$poison" ] || set_aside_by_rule "$name" || violation "$name failed, and no fault was its own"
        [ "$name" != "$poison" ] || rm -f "$scratch/poison"
    done
}

check_end() {
    local open
    [ "$(field "$job" ExitCode)" = 0:0 ] || violation "the job ended with $(field "$job" ExitCode)"
    damaged=
    check_folder
    [[ $("$tree" status "$run" --json) =~ \"condition\":[[:space:]]*\"finished\" ]] || violation "the search has not ended"
    open=$("$tree" show "$run" --json | grep -cE '"state":.*"(planned|running|suspended|open)"' || true)
    [ "$open" = 0 ] || violation "$open rounds or candidates are still open"
}

# ---- the report ---------------------------------------------------------------------------------------------------

figures() { # NUMBERS...: median and largest
    printf '%s\n' "$@" | grep . | sort -n | awk '{ v[NR] = $1 } END {
        if (NR == 0) { print "- -"; exit }
        m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; printf "%.2f %.2f\n", m, v[NR] }'
}

print_table() {
    local k i work time
    printf '\n%-22s %6s   %18s   %18s\n' fault times 'work lost (s)' 'time lost (s)'
    printf '%-22s %6s   %9s%9s   %9s%9s\n' '' '' median most median most
    for k in $(printf '%s\n' "${what[@]}" | sort | uniq) all; do
        work=() time=()
        for ((i = 0; i < struck; i++)); do
            [ "$k" = all ] || [ "${what[$i]}" = "$k" ] || continue
            work+=("${work_s[$i]-}")
            time+=("${time_s[$i]-}")
        done
        printf '%-22s %6s   %9s%9s   %9s%9s\n' "$k" ${#work[@]} $(figures "${work[@]}") $(figures "${time[@]}")
    done
    printf '{"faults": %d, "seed": %d, "candidates": %d, "submissions": %d, "requeues": %s, "seconds": %d, "violations": 0}\n' \
        "$struck" "$seed" "$(wc -l < finished.txt)" "$submissions" "$(field "$job" Restarts)" \
        $((($(now_ms) - began_ms) / 1000))
}
