# For scripts that run `nocturne finetune` on a tiny model; source after lib.sh and generate.sh, in $WORK.
#   training_data             model/, and rows, pairs and thumbs as .jsonl and .h5
#   ingest NAME               NAME.jsonl to NAME.h5, with consent
#   near DIR DIR LIMIT        fails unless the adapters agree
#   same_adapter DIR DIR      fails unless they are the same bytes
shape="--model model --max-length 96 --lora-r 4 --lora-alpha 8 --learning-rate 0.01"
ingest() { expect_rc 0 "$NOCTURNE" ingest --input "$1.jsonl" --output "$1.h5" --consent train --basis synthetic; }
training_data() {
    local kind
    tiny model --family smollm2 --layers 2
    check "training rows" python3 "$SOURCE/tests/jobs/tune_rows.py"
    for kind in rows pairs thumbs; do ingest $kind; done
}
near() { check "$2 is too far from $1" python3 "$SOURCE/tests/jobs/tune_check.py" near "$@"; }
same_adapter() {
    local file
    for file in adapter/adapter_model.safetensors adapter.gguf; do cmp "$1/$file" "$2/$file" || fail "$file differs between $1 and $2"; done
}
