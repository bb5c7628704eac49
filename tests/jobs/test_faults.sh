#!/usr/bin/env bash
# Wrong command lines, settings, models and inputs through the program: exit code and sentence; nothing is left that looks complete.
. "$(dirname "$0")/lib.sh"
cd "$WORK" || exit 1

check "tiny model" python3 "$SOURCE/tools/make_tiny_model.py" model --family llama --layers 1 --gguf model.gguf
printf '{"prompt": "hello", "max_tokens": 2}\n' > in.jsonl
n=0 failed=0

# row EXIT_CODE PART_OF_THE_SENTENCE ARGUMENT...
row() {
    local want=$1 part=$2 rc=0; shift 2
    rm -rf out_dir
    timeout -k 5 60 "$NOCTURNE" "$@" > out 2> err < /dev/null || rc=$?
    n=$((n + 1))
    if [ $rc -ne "$want" ] || ! grep -qF -- "$part" err; then
        echo "row $n: exit $rc (expected $want), expected \"$part\": $*" >&2; cat err >&2; failed=$((failed + 1))
    fi
    [ ! -e out_dir/COMPLETE ] || { echo "row $n: COMPLETE after a failure" >&2; failed=$((failed + 1)); }
}
gen() { local want=$1 part=$2; shift 2; row "$want" "$part" generate --model model --input in.jsonl --output out_dir "$@"; }
cfg() { local want=$1 part=$2; printf '%b' "$3" > job.cfg; gen "$want" "$part" --config job.cfg; }
broken_model() { local want=$1 part=$2; row "$want" "$part" generate --model bad --input in.jsonl --output out_dir; }

# command line
row 2 "maybe: generate?" genrate
row 2 "maybe: --input?" generate --inptu x
row 2 "no model given" generate --input in.jsonl --output out_dir
row 2 "no input given" generate --model model --output out_dir
row 2 "no output directory" generate --model model --input in.jsonl
row 66 "no such input file" generate --model model --input missing.jsonl --output out_dir
row 66 "missing-model" generate --model missing-model --input in.jsonl --output out_dir
row 66 "no such file" inspect missing
row 2 "unknown bench" bench gem
gen 78 "--temperature" --temperature hot
gen 78 "sampling.top_p" --set sampling.top_p=2
gen 78 "maybe: sampling.top_p?" --set sampling.topp=1
gen 78 "run.isa" --isa sse9
gen 78 "run.tp is 2" --tp 2

# settings files
cfg 78 "job.cfg:1" 'sampling: { temprature = 1.0; };\n'
cfg 78 "maybe: sampling.temperature?" '\nsampling: { temprature = 1.0; };\n'
cfg 78 "job.cfg:2" 'run: {\n tp = "two"; };\n'
cfg 78 "job.cfg:1" 'sampling: { seed = 99999999999999999999; };\n'
cfg 78 "job.cfg:1" 'run: { tp = 3000000000; };\n'
cfg 78 "job.cfg" 'run: { tp = 1; \n'
cfg 78 "job.cfg" 'nonsense: { a = 1; };\n'
cfg 78 "sampling.n" 'sampling: { n = 0; };\n'
gen 66 "no-such.cfg" --config no-such.cfg

# models
for shape in empty_dir no_weights bad_json unknown_family pickle text_gguf cut_gguf cut_safetensors no_tokenizer; do
    rm -rf bad
    case $shape in
        empty_dir) mkdir bad ;;
        no_weights) cp -r model bad; rm bad/*.safetensors ;;
        bad_json) cp -r model bad; echo '{"architectures": [' > bad/config.json ;;
        unknown_family) cp -r model bad; sed -i 's/LlamaForCausalLM/MambaForCausalLM/; s/"llama"/"mamba"/' bad/config.json ;;
        pickle) mkdir bad; cp model/*.json bad; printf 'PK\003\004data.pkl' > bad/pytorch_model.bin ;;
        text_gguf) echo 'not a model' > bad ;;
        cut_gguf) head -c 20000 model.gguf > bad ;;
        cut_safetensors) cp -r model bad; truncate -s -100 bad/model.safetensors ;;
        no_tokenizer) cp -r model bad; rm bad/tokenizer.json ;;
    esac
    case $shape in
        empty_dir) broken_model 66 "bad" ;;
        no_weights) broken_model 66 "safetensors" ;;
        bad_json) broken_model 65 "config.json" ;;
        unknown_family) broken_model 69 "MambaForCausalLM" ;;
        pickle) broken_model 69 "safe_serialization" ;;
        text_gguf) broken_model 65 "bad" ;;
        cut_gguf) broken_model 65 "bad" ;;
        cut_safetensors) broken_model 65 "model.safetensors" ;;
        no_tokenizer) broken_model 66 "tokenizer" ;;
    esac
done

# inputs that cannot be read at all; single bad lines are rows, see below
head -c 40 <(gzip -c in.jsonl) > cut.jsonl.gz
row 65 "cut.jsonl.gz" generate --model model --input cut.jsonl.gz --output out_dir
printf '\x28\xb5\x2f\xfd garbage' > bad.jsonl.zst
row 65 "bad.jsonl.zst" generate --model model --input bad.jsonl.zst --output out_dir
printf '\x89HDF\r\n\x1a\n garbage' > bad.h5
row 65 "bad.h5" generate --model model --input bad.h5 --output out_dir
touch file_in_the_way
row 74 "file_in_the_way" generate --model model --input in.jsonl --output file_in_the_way/out

# bad rows: the job goes on, N rows in give N rows out, each bad one named by its line
cat > rows.jsonl << 'EOF'
{"prompt": "fine", "max_tokens": 2}
not json
{"prompt": 7}
{"messages": []}
{"messages": [{"role": "robot", "content": "x"}]}
{"prompt": "x", "temperature": -1}
{"prompt": "x", "temprature": 1}
{"prompt": "x", "n": 0}
{"prompt": "x", "stream": true}
{"custom_id": "a", "method": "GET", "url": "/v1/completions", "body": {"prompt": "x"}}
{"custom_id": "b", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}
{"prompt": [1, 2, 99999999]}

{"prompt": "also fine", "max_tokens": 2}
EOF
expect_rc 0 "$NOCTURNE" generate --model model --input rows.jsonl --output rows_out
check "13 rows out" test "$(wc -l < rows_out/results.jsonl)" -eq 13
check "11 errors" test "$(wc -l < rows_out/errors.jsonl)" -eq 11
for line in 2 3 4 5 6 7 8 9 10 11 12; do
    grep -qE "line\"?: ?$line\b" rows_out/errors.jsonl || { echo "line $line is not named" >&2; failed=$((failed + 1)); }
done
[ $failed -eq 0 ] || fail "$failed of $n rows"
echo "$n broken calls, each with its sentence"
