#!/usr/bin/env bash
# Wrong input: an error that names file and place and what to do, exit code 1 or 2, nothing lost.
. "$(dirname "$0")/common.sh"
make_task

expect 2 'usage: trex' "$trex"
expect 0 'usage: trex' "$trex" --help
expect 2 'no command "serach"' "$trex" serach
for command in check search train eval generate data tokenize sources relay init version; do
    expect 0 'example: ' "$trex" $command --help
done
for command in status show best export verify; do
    expect 0 'xample' "$tree" $command --help
done
expect 2 'lists the options' "$trex" check --nonsense job.json
expect 2 '0 arguments given' "$trex" check
expect 2 'no-such.json.*No such file' "$trex" check no-such.json

# the job file
echo '{"model": ' > broken.json
expect 2 'broken.json:1:' "$trex" check broken.json
sed 's/"metric": "accuracy"/"metric": "luck"/; s/"name": "tiny"/"nmae": "tiny"/' job.json > wrong.json
expect 2 '/nmae: unknown key' "$trex" check wrong.json
expect 2 '/task/metric' "$trex" check wrong.json
sed 's/"model": "model"/"model": "${TREX_NOT_SET}"/' job.json > unset.json
expect 2 'TREX_NOT_SET' "$trex" check unset.json
expect 2 'TREX_NOT_SET' mpirun -n 2 "$trex" search unset.json


# where the run folder is, for scripts: the job's word, ${NAMES} in it, --out, or the job's name
sed 's|"output": "run"|"output": "${TREX_SOME}/deep"|' job.json > named.json
sed 's|"output": "run",||' job.json > unnamed.json
expect 0 '^run$' "$trex" check job.json --output-folder
expect 0 '^there/deep$' env TREX_SOME=there "$trex" check --output-folder named.json
expect 0 '^else where$' "$trex" check job.json --out 'else where' --output-folder
expect 0 '^runs/tiny$' "$trex" check unnamed.json --output-folder
expect 2 '/task/metric' "$trex" check wrong.json --output-folder

# a launcher that MPI does not know: every rank would be the first of one
expect 2 '1 rank, but 3 were started' env SLURM_STEP_NUM_TASKS=3 "$trex" search job.json
[ ! -e run ] || die "a rank that was refused has made the run folder"

# the model
sed 's/"model": "model"/"model": "nowhere"/' job.json > nomodel.json
expect 2 'nowhere' "$trex" check nomodel.json
cp -r model cut && truncate -s 1000 cut/model.safetensors
sed 's/"model": "model"/"model": "cut"/' job.json > cutmodel.json
code=0; "$trex" check cutmodel.json > out.txt 2>&1 || code=$?
[ $code = 1 ] || [ $code = 2 ] || die "cut model: exit code $code"
grep -q 'cut/model.safetensors' out.txt || die "cut model is not named"
ok "a cut model is named"
cp -r model shaped && sed -i 's/"hidden_size":\s*32/"hidden_size": 64/' shaped/config.json
sed 's/"model": "model"/"model": "shaped"/' job.json > shaped.json
code=0; "$trex" check shaped.json > out.txt 2>&1 || code=$?
[ $code != 0 ] && grep -q 'embed_tokens' out.txt || { cat out.txt; die "a tensor of the wrong shape is not named"; }
ok "a tensor of the wrong shape is named"

# the data
sed 's/train.jsonl/bad.jsonl/' job.json > bad.json
printf '{"prompt": "a", "answer": "up", "choices": ["up", "down"]}\nnot json\n' > bad.jsonl
expect 2 'bad.jsonl:2' "$trex" check bad.json
printf '{"prompt": "a", "answer": "up", "choices": ["up", "down"]}\n{"question": "a"}\n' > bad.jsonl
expect 2 'bad.jsonl:2' "$trex" check bad.json
: > bad.jsonl
expect 2 'bad.jsonl' "$trex" check bad.json
expect 2 'bad.jsonl' mpirun -n 2 "$trex" search bad.json
rm bad.jsonl
expect 2 'bad.jsonl' "$trex" check bad.json

# by hand
expect 2 'sequence|positions' "$trex" train job.json --out long --config '{"sequence_length": -5}'
expect 2 '/config/learning_rat: unknown key' "$trex" train job.json --out t --config '{"learning_rat": 1}'
expect 2 '/0/op.*polish' "$trex" data job.json --out rows.jsonl --recipe '[{"op": "polish"}]'
expect 2 'nothing.h5' "$trex" eval job.json --weights nothing.h5
expect 2 'not a number' "$trex" generate model --max-new-tokens many
head -c 4000 /dev/urandom > random.h5
code=0; "$trex" eval job.json --weights random.h5 > out.txt 2>&1 || code=$?
[ $code = 1 ] || [ $code = 2 ] || die "random bytes as weights: exit code $code"
grep -q random.h5 out.txt || die "random.h5 is not named"
ok "random bytes as weights are refused by name"

# folders
: > file
expect 2 'file' mpirun -n 2 "$trex" search job.json --out file/run
expect 2 'no-run' "$tree" status no-run

# A search whose folder goes away while it runs has failed (1); its job was right (2 would end the batch script's tries).
sed 's/"threads": 1/"threads": 1, "backend": "cpu"/; s/^{/{"search": {"rounds": 5000}, /' job.json > long.json
"$trex" search long.json --out gone > out.txt 2>&1 &
pid=$!
for i in $(seq 1200); do
    grep -qs 'n0000-c0' gone/log.jsonl && break
    sleep 0.1
done
mv gone elsewhere
kill -USR1 $pid
code=0; wait $pid || code=$?
[ $code = 1 ] || { cat out.txt; die "a folder that went away: exit code $code, not 1"; }
grep -q 'gone.*No such file' out.txt || { cat out.txt; die "the folder that went away is not named"; }
ok "a folder that goes away while the search runs is no wrong input"

if mkdir mounted && mount -t tmpfs -o size=1m tmpfs mounted 2> /dev/null; then
    code=0
    mpirun -n 2 "$trex" search job.json --out mounted/run > out.txt 2>&1 || code=$?
    umount -l mounted
    [ $code = 74 ] || { cat out.txt; die "full disk: exit code $code, not 74"; }
    grep -qiE 'no space' out.txt || { cat out.txt; die "a full disk is not named"; }
    ok "a full disk is an error with words"
else
    echo "skipped - a full disk: this user may not mount a small file system"
fi
echo "$passed passed, 0 failed"
