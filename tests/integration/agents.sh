# Shared by the tests of agents: a scripted language model on this machine, the services of papers and data beside it,
# and jobs that ask them. Sourced after common.sh.
lm=$build/tests/test_lm_server
[ -x "$lm" ] || { echo "skipped: $lm is not built"; exit 77; }
services=$tests/net/golden # what the services of papers and data answer
export TREX_TEST_KEY=sk-canary-7f3a91c2d5e84b60 # shaped like a key; nothing but its header may ever hold it

# serve NAME [OPTIONS...]: starts a server; its port is then in the variable port.
serve() {
    local name=$1
    shift
    rm -f "$name.port"
    "$lm" --port-file "$name.port" --log "$name.log" --key-env TREX_TEST_KEY "$@" > "$name.out" 2>&1 &
    server=$!
    for _ in $(seq 200); do
        [ ! -s "$name.port" ] || break
        sleep 0.05
    done
    port=$(cat "$name.port")
}

# make_agents_job KEYS: job.json for the server at $port; KEYS: more of "researcher", JSON that begins with a comma.
make_agents_job() {
    make_task ", \"researcher\": {\"provider\": \"openai\", \"model\": \"scripted\", \"key_env\": \"TREX_TEST_KEY\",
        \"endpoint\": \"http://127.0.0.1:$port/v1\", \"tries\": 2, \"connect_seconds\": 1, \"stall_seconds\": 0.5,
        \"timeout_seconds\": 5, \"input_usd\": 1, \"output_usd\": 2${1-}},
      \"limits\": {\"agent_tokens\": 4000000, \"agent_money_usd\": 50},
      \"search\": {\"rounds\": ${rounds:-2}, \"configurations\": 2, \"seed\": 3}"
}

# What two runs must agree in: the tree, without times, costs and addresses.
decided() { # RUN
    "$tree" show "$1" --json | grep -vE '_s"|seconds|_hours|version|host|_at|time|usd|attempts|127.0.0.1'
}
