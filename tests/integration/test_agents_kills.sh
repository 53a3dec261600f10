#!/usr/bin/env bash
# SIGKILL while a language model is asked: no candidate and no answer is lost, nothing that was answered is asked or paid
# for twice, no cap is passed, and the search goes on to its end. The same with a relay, which is killed too.
#   KILLS=9 a search (default), SEED of the instants
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/integration/common.sh"
. "$tests/integration/agents.sh"
kills=${KILLS:-9}
RANDOM=${SEED:-1}

mkdir replies
cat > replies/direction.json <<'J'
{"strategy": "change training", "title": "rates {{n}}", "hypothesis": "the rate is too low", "why": "loss still fell",
 "evidence": ["n0000: accuracy near 0.5"]}
J
cat > replies/plan.json <<'J'
{"goal": "which rate {{n}}", "expectation": "0.95", "rationale": "still noise", "refuted_if": "below 0.7",
 "configs": [{"learning_rate": 0.02, "max_steps": 3{{n}}}, {"learning_rate": 0.006, "max_steps": 3{{n}}}]}
J
# a dry run that its job did not outlive sends its plan back
sed 's/which rate/which rate instead/; s/: 3{{n}}/: 4{{n}}/g' replies/plan.json > replies/repair.json
echo '{"queries": [{"source": "arxiv", "text": "fine-tuning small language models"}]}' > replies/literature.json
echo '{"queries": [{"source": "hf_datasets", "text": "short reviews"}]}' > replies/data.json
echo '{"notes": [{"document": 1, "note": "short warm-up suffices"}]}' > replies/reading.json
echo '{"choices": []}' > replies/choice.json
echo '{"new": [{"text": "low rates learn nothing here", "nodes": [0]}], "merged": [], "retired": []}' > replies/insights.json

# A server of its own for each search, and a job that waits for it for as long as a busy machine takes.
prepare() { # NAME ROUNDS AGENT_TOKENS KEYS
    serve "$1" --replies replies --files "$services" --delay 0.1
    asked=$PWD/$1.log
    touch "$asked"
    export TREX_SOURCES_URL=http://127.0.0.1:$port
    rounds=$2
    make_agents_job "$4"
    sed -i "s/\"agent_tokens\": [0-9]*/\"agent_tokens\": $3/; s/\"stall_seconds\": 0.5/\"stall_seconds\": 60/
        s/\"connect_seconds\": 1/\"connect_seconds\": 60/; s/\"timeout_seconds\": 5/\"timeout_seconds\": 60/; s/\"tries\": 2/\"tries\": 1/" job.json
}

start() { # RUN [NAME=VALUE...]
    env "${@:2}" "$trex" search job.json --out "$1" --simulate 0.05 > log.txt 2>&1 &
    pid=$!
}

until_asked() { # COUNT: so many chats more, or the end of the search; where a cap allows no more, a moment
    local target=$(($(wc -l < "$asked") + $1))
    for _ in $(seq "$patience"); do
        [ "$(wc -l < "$asked")" -lt "$target" ] && kill -0 "$pid" 2> /dev/null || return 0
        sleep 0.02
    done
}

# A line a call: state, kind, attempts, tokens in and out, reserved, USD, reserved, key.
calls_of() { # RUN
    "$tree" show "$1" --calls --json | awk -F'"' '
        function number(text) { gsub(/[^0-9.e+-]/, "", text); return text + 0 }
        $2 ~ /^(state|kind|key)$/ { value[$2] = $4; gsub(/ /, "-", value[$2]) }
        $2 ~ /^(attempts|tokens_in|tokens_out|reserved_tokens|cost_usd|reserved_usd)$/ { value[$2] = number($3) }
        $2 == "attempts" { print value["state"], value["kind"], value["attempts"], value["tokens_in"] + value["tokens_out"],
            value["reserved_tokens"], value["cost_usd"], value["reserved_usd"], value["key"] }'
}

# What the search counts is the sum of its calls, and below its caps.
check_ledger() { # RUN
    calls_of "$1" > calls.txt
    "$tree" status "$1" > status.txt
    sed -nE 's/.* ([0-9]+) of ([0-9]+) tokens, ([0-9.]+) of ([0-9.]+) USD.*/\1 \2 \3 \4/p' status.txt > counted.txt
    awk 'NR == FNR { tokens = $1; tokens_max = $2; usd = $3; usd_max = $4; next }
        { spent = $1 == "answered" || $1 == "failed"; sum += spent ? $4 : $5; sum_usd += spent ? $6 : $7 }
        END { exit !(tokens == sum && tokens <= tokens_max && usd <= usd_max && (usd - sum_usd)^2 < 1e-8) }' \
        counted.txt calls.txt || { cat status.txt calls.txt; die "$1: the ledger is not the sum of its calls, or above a cap"; }
}

# What was there before a kill is there after it.
check_kept() { # RUN
    "$tree" verify "$1" > verify.txt 2>&1 || { cat verify.txt log.txt; die "$1: verify fails"; }
    check_ledger "$1"
    { finished "$1"; awk '$1 == "answered" { print $2, $4, $8 }' calls.txt | sort; } > now.txt
    [ -z "$(sort now.txt | comm -23 known.txt -)" ] || { diff known.txt now.txt; die "$1: a kill lost something"; }
    sort now.txt > known.txt
}

# Kills the search that was started, in one of three ways. Sets `struck` if it was still running.
points=(store.journal.before_write store.journal.mid_write store.journal.after_sync)
kill_once() { # RUN NUMBER
    local code=0
    case $(($2 % 3)) in
        0) # at a random instant after it has asked a little
            start "$1"
            until_asked $((2 + RANDOM % 4))
            sleep "0.0$((RANDOM % 10))"
            kill -KILL "$pid" 2> /dev/null || true ;;
        1) # before, within, after a write of the journal
            start "$1" "TREX_FAULT=${points[RANDOM % 3]}:$((8 + RANDOM % 16))=kill" ;;
        2) # while it is told to stop and writes run.h5
            start "$1" TREX_FAULT=store.run.mid_write=kill
            until_asked $((2 + RANDOM % 4))
            kill -TERM "$pid" 2> /dev/null || true ;;
    esac
    wait "$pid" 2> /dev/null || code=$?
    struck=
    [ "$code" != 137 ] || struck=yes
    [ "$code" = 137 ] || [ "$code" = 0 ] || { cat log.txt; die "exit code $code"; }
}

# Contents of the chats that the server was asked, and of those that the run has, with what became of them.
check_asked() { # RUN EXTRA: so many chats may have been asked twice, beside lost ones
    "$tree" show "$1" --prompts --json | awk -F'"' '
        function number(text) { gsub(/[^0-9]/, "", text); return text + 0 }
        /^\t*"state":/ { state = $4 }
        /^\t*"attempts":/ { attempts = number($3) }
        /^\t*"content":\t/ { content = $0; sub(/^\t*"content":\t"/, "", content); sub(/",?$/, "", content) }
        /^\t*"reply":/ { if (content != "") { print state "\t" attempts "\t" content } content = "" }' |
        sed 's/"}].*//' > recorded.txt
    sed 's/.*"content":"//; s/"}].*//' "$asked" > chats.txt
    awk -F'\t' -v allowed="$2" 'NR == FNR { asked[$0]++; next }
        $1 == "lost" { lost[$3]++; next }
        { paid[$3] += $2 }
        END {
            for (content in paid) { if (paid[content] > asked[content]) { print "never asked: " content; bad = 1 } }
            for (content in asked) {
                extra = asked[content] - paid[content]
                if (extra > lost[content]) { sum += extra - lost[content]; print "asked too often: " substr(content, 1, 300) }
            }
            exit bad || sum > allowed
        }' chats.txt recorded.txt > bad.txt || { cat bad.txt calls.txt; die "$1: asked twice, or not recorded"; }
    [ -z "$(awk '$1 != "lost" { print $8 }' calls.txt | sort | uniq -d)" ] || { cat calls.txt; die "$1: answered twice"; }
}

check_end() { # RUN
    expect 0 '' "$trex" search job.json --out "$1" --simulate 0.05
    check_kept "$1"
    "$tree" status "$1" --json > status.json
    grep -q '"condition":[[:space:]]*"finished"' status.json || { cat status.json; die "$1 has not finished"; }
    [ "$(finished "$1" | sed 's/-.*//' | sort -u | wc -l)" = $((rounds + 1)) ] || die "$1: not all $rounds rounds are done"
    ! grep -q '^under' calls.txt || { cat calls.txt; die "$1: a call has no end"; }
    by_model=$("$tree" show "$1" --json | grep -c '"researcher":[[:space:]]*"openai scripted"' || true)
}

end_server() { kill "$server"; wait "$server" 2> /dev/null || true; }

killed() { # NAME ROUNDS AGENT_TOKENS PATIENCE KEYS: a search that is killed again and again
    local i count=0
    patience=$4
    prepare "$1" "$2" "$3" "$5"
    : > known.txt
    for ((i = 0; i < kills; i++)); do
        kill_once "$1" "$i"
        [ -n "$struck" ] || break
        count=$((count + 1))
        if [ -e "$1/run.h5" ] || [ -e "$1/journal.jsonl" ]; then
            check_kept "$1"
        fi
    done
    check_end "$1"
    check_asked "$1" 0
    ok "$1: killed $count times: $(grep -c '^answered chat' calls.txt) chats answered, $(grep -c '^lost' calls.txt || true)" \
        "lost, $(wc -l < "$asked") asked; $by_model of $rounds plans are the model's"
    [ "$count" -ge 8 ] || die "$1: only $count kills"
    end_server
}

# One that nobody disturbs.
undisturbed() {
    prepare whole 6 4000000 ''
    expect 0 'the search has ended' "$trex" search job.json --out whole --simulate 0.05
    end_server
}

# A replay makes the same tree, though candidates and answers come as fast as they can, several in one write of the
# journal, and though the search was interrupted.
check_replay() { # RUN
    expect 0 'the search has ended' env -u TREX_TEST_KEY "$trex" search job.json --replay "$1" --out "$1-again" --simulate 0.05
    decided "$1" > recorded.txt
    decided "$1-again" > replayed.txt
    diff recorded.txt replayed.txt > diff.txt || { cat out.txt; head -40 diff.txt; die "the replay of $1 has another tree"; }
    ok "a replay of $1 has the same tree"
}

# A relay that is killed while it asks, and a job that is killed while it waits for the relay: the job's calls go on, and
# what is asked twice is no more than what a relay had under way when it died.
start_relay() {
    "$trex" relay job.json --out relayed >> relay.txt 2>&1 &
    relay=$!
}
relayed() {
    local i extra=0 name
    prepare relayed 500 4000000 ', "network": "relay"'
    patience=6000
    : > known.txt
    start_relay
    for i in 1 2 3; do
        start relayed -u TREX_TEST_KEY
        until_asked $((2 + RANDOM % 3))
        sleep "0.0$((RANDOM % 10))"
        kill -KILL "$relay"
        wait "$relay" 2> /dev/null || true
        for name in relayed/relay/replies/*.asked; do
            [ ! -e "$name" ] || [ -e "${name%.asked}.json" ] || extra=$((extra + 1))
        done
        start_relay
        until_asked $((2 + RANDOM % 3))
        kill -KILL "$pid"
        wait "$pid" 2> /dev/null || true
        check_kept relayed
        ! grep '^lost' calls.txt || die "what a relay answers was lost with its job"
    done
    # A limit that is lowered meanwhile holds for the plans that are under way too.
    rounds=$("$tree" status relayed --json | tr -d '\t\n' |
        sed -E 's/.*"rounds":\{"closed":([0-9]+),"failed":([0-9]+),"open":([0-9]+).*/\1+\2+\3+2/')
    rounds=$((rounds))
    sed -i "s/\"rounds\": 500/\"rounds\": $rounds/" job.json
    check_end relayed
    kill -TERM "$relay"
    wait "$relay" || { cat relay.txt; die "the relay ends with another code than 0"; }
    check_asked relayed "$extra"
    ok "a relay killed $i times, its job too: $(grep -c '^answered chat' calls.txt) chats answered, $(wc -l < "$asked") asked"
    awk -F'[:,}]' -v search="$(cut -d ' ' -f 1 counted.txt)" '{ exit !($2 >= search && $2 <= 4000000) }' \
        relayed/relay/spent.json || { cat relayed/relay/spent.json counted.txt; die "the relay counts less than the search"; }
    end_server
}

undisturbed
check_replay whole
killed plenty 12 4000000 6000 ''
# A plan whose dry runs were under way at one kill after the other is taken for what ends its jobs.
blamed=$("$tree" show plenty --json | grep -c 'Planned by the rules.*the job ended while it was run dry' || true)
[ $((by_model + blamed)) = "$rounds" ] || die "only $by_model of $rounds plans are the model's, $blamed were blamed"
check_replay plenty
killed tight 80 80000 50 ', "reply_tokens": 512, "literature": false, "data": false'
[ "$by_model" -gt 0 ] && [ "$by_model" -lt "$rounds" ] || die "$by_model of $rounds plans are the model's, in spite of the cap"
check_replay tight
relayed
echo "$passed passed, 0 failed"
