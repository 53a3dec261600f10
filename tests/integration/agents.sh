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

# What a good model replies, in the folder replies.
make_replies() {
    mkdir replies
    cat > replies/brief.json <<'J'
{"summary": "Tell whether the last word of a line goes up or down.", "scoring": "share of right labels",
 "obstacles": ["the model has not seen the words"], "hypotheses": [
  {"claim": "a learning rate of 0.01 is enough", "test": "rates around it", "refuted_if": "accuracy stays below 0.6"},
  {"claim": "the rows repeat", "test": "dedup", "refuted_if": "no row is removed"}]}
J
    cat > replies/literature.json <<'J'
{"queries": [{"source": "arxiv", "text": "fine-tuning small language models"}, {"source": "openalex", "text": "sentiment"}]}
J
    echo '{"notes": [{"document": 1, "note": "short warm-up suffices"}]}' > replies/reading.json
    echo '{"queries": [{"source": "hf_datasets", "text": "short reviews"}]}' > replies/data.json
    cat > replies/choice.json <<'J'
{"choices": [{"document": 1, "config": "default", "split": "train", "rows": 3, "note": "sentence is the text, label the answer"}]}
J
    cat > replies/direction.json <<'J'
{"strategy": "change training", "title": "other rates {{n}}", "hypothesis": "the rate is too low", "why": "loss still fell",
 "evidence": ["n0000: accuracy near 0.5"]}
J
    # the first plan names an operator that does not exist and is repaired; later ones are good
    cat > replies/plan.1.json <<'J'
{"goal": "which rate", "expectation": "0.9", "rationale": "loss still fell", "refuted_if": "below 0.6",
 "recipe": [{"op": "dedup"}], "configs": [{"learning_rate": "fast"}]}
J
    cat > replies/repair.json <<'J'
{"goal": "which rate", "expectation": "0.9", "rationale": "loss still fell", "refuted_if": "below 0.6",
 "recipe": [{"op": "dedup"}], "configs": [{"learning_rate": 0.01, "max_steps": 30}, {"learning_rate": 0.003, "max_steps": 30}]}
J
    cat > replies/plan.json <<'J'
{"goal": "which rate now", "expectation": "0.95", "rationale": "still noise", "refuted_if": "below 0.7",
 "configs": [{"learning_rate": 0.02, "max_steps": 3{{n}}}, {"learning_rate": 0.006, "max_steps": 3{{n}}}]}
J
    cat > replies/diagnosis.json <<'J'
{"summary": "It answers by the label that is more frequent.", "causes": [{"cause": "too few steps", "share": 0.8,
 "evidence": "rows that say sinks", "remedy": "train longer"}], "compared": "better than n0000 beyond the noise"}
J
    cat > replies/insights.json <<'J'
{"new": [{"text": "rates below 0.003 learn nothing here", "nodes": [0]}], "merged": [], "retired": []}
J
}
