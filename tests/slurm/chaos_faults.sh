# The kinds of faults. Sourced by chaos. strike_KIND does it at once; arm_KIND arms it for ranks that start later.

# Of a hundred faults so many; the poison strikes by itself, until it is set aside.
declare -A shares=([rank]=24 [ranks]=9 [write]=23 [corrupt]=10 [full]=5 [slow]=6 [clock]=6 [hang]=3 [limit]=4 [requeue]=3
    [node]=3 [frozen]=1 [frozen-blind]=1)
kinds=${CHAOS_KINDS:-rank ranks write corrupt full slow clock hang limit requeue node frozen frozen-blind}
declare -A arms_at_start=([write]=yes [slow]=yes [clock]=yes [hang]=yes)
told=${CHAOS_TOLD-' rank ranks write corrupt full hang node frozen frozen-blind poison '}
blind= # the start of the ranks that has no flock
declare -A armed_kind armed_rank armed_ends

# ---- at once ------------------------------------------------------------------------------------------------------

pick_rank() { # sets pid and rank
    local list
    for _ in $(seq 600); do # a fault that was armed may have struck just now: they start again
        mapfile -t list < <(rank_list | sort -k 2n)
        [ ${#list[@]} = 0 ] || break
        sleep 0.1
    done
    [ ${#list[@]} -gt 0 ] || violation "no rank runs"
    draw ${#list[@]}
    read -r pid rank _ <<< "${list[drawn]}"
}

kill_all() { rank_list | cut -d ' ' -f 1 | xargs -r kill -KILL 2> /dev/null || true; }

strike_rank() {
    pick_rank
    begin_strike rank yes "rank $rank"
    kill -KILL "$pid" 2> /dev/null || true # another fault may be faster
}

strike_ranks() {
    begin_strike ranks yes "all at once"
    kill_all
}

strike_limit() {
    begin_strike limit yes "the signal before the time limit"
    signal_limit "$job"
}

strike_requeue() {
    begin_strike requeue yes "scontrol requeue"
    scontrol requeue "$job"
}

strike_node() {
    local nodes
    mapfile -t nodes < <(scontrol show hostnames "$(field "$job" NodeList)")
    draw ${#nodes[@]}
    begin_strike node yes "${nodes[drawn]} loses power"
    "$cluster" crash "$scratch/c" "${nodes[drawn]}"
    scontrol update NodeName="${nodes[drawn]}" State=DOWN Reason=power
    "$cluster" boot "$scratch/c" "${nodes[drawn]}"
}

strike_full() {
    begin_strike full yes "the disk is full for a while"
    dd if=/dev/zero of="$scratch/disk/fill" bs=256k 2> /dev/null || true
    poll_until 60 "the ranks notice that the disk is full" ranks_gone "$start"
    sleep 1
    rm "$scratch/disk/fill"
}

# Damages a file: a byte in the middle flipped, or its end cut.
flip_byte() { # FILE
    local size byte
    size=$(stat -c %s "$1")
    byte=$(dd if="$1" bs=1 skip=$((size / 2)) count=1 2> /dev/null | od -An -tu1)
    printf "\\x$(printf %x $((byte ^ 255)))" | dd of="$1" bs=1 seek=$((size / 2)) conv=notrunc 2> /dev/null
}

strike_corrupt() {
    local i=$struck name state='' damages=('run.h5 flipped' 'run.h5 cut' 'journal with a torn line' 'a state flipped' 'a state cut')
    draw 5
    : > hold # nobody starts meanwhile
    begin_strike corrupt yes "${damages[drawn]}, if there is one"
    kill_all
    poll_until 60 "the ranks are gone" ranks_gone "${of_start[$i]}"
    check_folder # who has finished has no state any more
    for name in $(in_training "${of_start_s[$i]}" | cut -d ' ' -f 1); do
        [ ! -e "$run/inflight/$name.h5" ] || state=$run/inflight/$name.h5
    done
    case $drawn in
        0) [ ! -e "$run/run.h5" ] || { flip_byte "$run/run.h5"; damaged=run.h5; } ;;
        1) [ ! -e "$run/run.h5" ] || { truncate -s -1000 "$run/run.h5"; damaged=run.h5; } ;;
        2) tail -n 1 "$run/journal.jsonl" | head -c 60 >> "$run/journal.jsonl" ;;
        3) [ -z "$state" ] || { flip_byte "$state"; damaged=${state##*/}; } ;;
        4) [ -z "$state" ] || { truncate -s -1000 "$state"; damaged=${state##*/}; } ;;
    esac
    rm hold
}

# Both nodes freeze, Slurm finds them down and starts the search on others; later they wake up, and their ranks go on as
# if nothing had been, until Slurm ends them: what they write must not count.
freeze_nodes() { # KIND
    local node daemon nodes frozen=()
    mapfile -t nodes < <(scontrol show hostnames "$(field "$job" NodeList)")
    for node in "${nodes[@]}"; do
        daemon=$(pgrep -f "^[^ ]*slurmd -D -N $node -f $scratch/c/slurm.conf$")
        frozen+=($(pgrep --ns "$daemon" --nslist pid))
    done
    begin_strike "$1" yes "${nodes[*]} freeze, the job goes on elsewhere, they wake up"
    kill -STOP "${frozen[@]}"
    check_folder
    measure_loss $((struck - 1))
    for node in "${nodes[@]}"; do
        scontrol update NodeName="$node" State=DOWN Reason=frozen
    done
    poll_until 180 "the search goes on, or waits for the folder" eval '[ $trained = yes ] || [ $refused = yes ]'
    kill -CONT "${frozen[@]}" 2> /dev/null || true
    for ((i = 0; i < 60; i++)); do
        poll
    done
    for node in "${nodes[@]}"; do
        scontrol update NodeName="$node" State=RESUME 2> /dev/null || true # or it has come back by itself
    done
}

strike_frozen() { freeze_nodes frozen; }

strike_frozen_blind() {
    arm flock no 0 flock=absent # those who go on have none either
    freeze_nodes frozen-blind
    rm -f arms/0
}

# ---- armed --------------------------------------------------------------------------------------------------------

arm() { # KIND ENDS RANK FAULT; without effect if the rank is armed already
    local fault=$4
    [ ! -e "arms/$3" ] && ! grep -qsxF "$fault" arms/* || return 0
    armed_kind[$fault]=$1 armed_ends[$fault]=$2 armed_rank[$fault]=$3
    echo "$fault" > "arms/$3.new"
    mv "arms/$3.new" "arms/$3"
}

# A store's fault point: those of rank 0, or those of files of arrays, which the others write.
pick_point() { # RANK: sets point
    local points
    if [ "$1" = 0 ]; then
        mapfile -t points < <(grep -rhoE 'fault_point\("(store\.(run|journal)|base\.file)\.[a-z_.]+' "$root/src" | cut -d '"' -f 2 | sort -u)
    else
        mapfile -t points < <(grep -rhoE 'fault_point\("(store\.arrays|base\.file)\.[a-z_.]+' "$root/src" | cut -d '"' -f 2 | sort -u)
    fi
    draw ${#points[@]}
    point=${points[drawn]}
}

arm_write() {
    local rank
    draw 4
    rank=$drawn
    pick_point "$rank"
    draw 3
    arm write yes "$rank" "$point:$((drawn + 1))=kill"
}

arm_slow() {
    local rank
    draw 4
    rank=$drawn
    pick_point "$rank"
    draw 3
    arm slow no "$rank" "$point:$((drawn + 1))=slow"
}

arm_clock() {
    local where=ahead
    draw 2
    [ "$drawn" = 0 ] || where=back
    draw 40
    arm clock no 0 "clock:$((drawn + 1))=$where"
}

arm_hang() {
    local rank
    draw 3
    rank=$((drawn + 1))
    draw 400
    arm hang yes "$rank" "run.worker.step:$((drawn + 1))=hang"
}

# One candidate kills each rank that it meets, the whole search long.
choose_poison() {
    draw 4
    poison=n000$((drawn + 2))-c0
    echo "run.worker.$poison=kill" > poison
}

armed_strike() { # FAULT, as the rank said it
    if [ "$1" = "run.worker.$poison=kill" ]; then
        begin_strike poison yes "$poison kills its rank" "$log_start"
        return
    fi
    if [ "$1" = flock=absent ]; then # no fault by itself
        blind=$start
        return
    fi
    [ -n "${armed_kind[$1]-}" ] || violation "a fault that nobody armed: $1"
    rm -f "arms/${armed_rank[$1]}"
    begin_strike "${armed_kind[$1]}" "${armed_ends[$1]}" "$1 on rank ${armed_rank[$1]}" "$log_start"
}
