#!/usr/bin/env bash
# kill -9 at 30 moments of `nocturne finetune`, on one rank and on two, and a disk that fills up; then the same command: the bytes and steps
# of an undisturbed run, and no temporary file. And data and adapters that cannot be trained on: each its sentence, and nothing lost.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
. "$(dirname "$0")/finetune.sh"
cd "$WORK" || exit 1

training_data
tune() { # DIR [FLAG...]
    local dir=$1; shift
    timeout -k 5 "$NT_TIMEOUT" "$NOCTURNE" finetune $flags --output "$dir" "$@" < /dev/null
}
common="$shape --batch-size 8 --set run.watchdog_s=60"
flags="$common --input rows.h5 --num-train-epochs 8 --eval-fraction 0.25 --save-steps 3 --eval-steps 6 --threads 1"

# The adapters' bytes, and every line of metrics.jsonl but for its times.
same_run() { # A B
    local file
    for file in adapter/adapter_model.safetensors adapter/adapter_config.json adapter.gguf COMPLETE; do
        cmp "$1/$file" "$2/$file" || fail "$file differs between $1 and $2"
    done
    for file in "$1" "$2"; do sed -E 's/"(t|tokens_per_s|mfu|peak_flops|elapsed_s)":[^,}]*//g' "$file/metrics.jsonl" > "$file.steps"; done
    diff "$1.steps" "$2.steps" > steps.diff || { head -5 steps.diff >&2; fail "$2 tells of other steps than $1"; }
    check "temporary files are left in $2" test -z "$(find "$2" -name '.tmp-*' -print -quit)"
}

# ---- killed at any moment: all processes of the session at once, as when a node loses power ----
RANDOM=${NT_SEED:-30}
lines() { wc -l 2> /dev/null < "$dir/metrics.jsonl" || echo 0; }
kill_one() { # COMMAND...: after a random time, or some random lines of metrics.jsonl further on; sets kills
    local pid i after=$((kills % 2 ? RANDOM % 40 : RANDOM % ms)) more=$((kills % 2 ? $(lines) + RANDOM % 10 : 0))
    setsid "$@" > out 2>&1 < /dev/null &
    pid=$!
    for i in $(seq 1000); do [ "$(lines)" -ge $more ] || ! kill -0 $pid 2> /dev/null && break; sleep 0.01; done
    sleep "$(printf '%d.%03d' $((after / 1000)) $((after % 1000)))"
    kill -0 $pid 2> /dev/null && kills=$((kills + 1))
    kill -9 $(ps -o pid= -s $pid) 2> /dev/null
    wait $pid 2> /dev/null
}
killed() { # KILLS BASE [LAUNCHER...]
    local want=$1 base=$2 begin ms dir=killed.$2 kills=0 finished=0 resumed=0; shift 2
    begin=$(date +%s%N)
    expect_rc 0 timeout -k 5 "$NT_TIMEOUT" "$@" "$NOCTURNE" finetune $flags --output "$base" < /dev/null
    ms=$((($(date +%s%N) - begin) / 1000000)) # kills fall anywhere in a run, however fast the machine is
    while [ $kills -lt "$want" ]; do
        kill_one "$@" "$NOCTURNE" finetune $flags --output "$dir"
        grep -q "resuming after step" out && resumed=$((resumed + 1))
        [ -f "$dir/COMPLETE" ] || continue
        finished=$((finished + 1))
        expect_rc 0 timeout -k 5 "$NT_TIMEOUT" "$@" "$NOCTURNE" finetune $flags --output "$dir" < /dev/null
        same_run "$base" "$dir"
        rm -rf "$dir"
    done
    expect_rc 0 timeout -k 5 "$NT_TIMEOUT" "$@" "$NOCTURNE" finetune $flags --output "$dir" < /dev/null
    same_run "$base" "$dir"
    check "nothing was ever resumed" test $resumed -gt 0
    echo "$base: $kills kills, $resumed resumes, $((finished + 1)) completed runs, same bytes"
}
killed 22 one
sft=$flags flags="$common --input pairs.h5 --loss dpo --num-train-epochs 3 --eval-fraction 0.25 --save-steps 3 --eval-steps 6 --threads 1"
killed 8 dp2 mpirun --oversubscribe --bind-to none -np 2
check "what a killed run left beside the corpus" test -z "$(find . -maxdepth 1 -name '.tmp-pairs*' -print -quit)"
# killed while it saved the reference beside the corpus: the next run over it clears up, but not what a living process writes
(exit 0) & dead=$!
wait $dead
touch ".tmp-pairs.h5.reference-0123456789abcdef.$(hostname).$dead" ".tmp-pairs.h5.reference-0123456789abcdef.$(hostname).$$"
expect_rc 0 timeout -k 5 "$NT_TIMEOUT" "$NOCTURNE" finetune $flags --output again < /dev/null
check "a dead run's file stays, or a living one's went" test "$(find . -maxdepth 1 -name '.tmp-pairs*')" = \
    "./.tmp-pairs.h5.reference-0123456789abcdef.$(hostname).$$"
flags=$sft

# ---- a full disk ----
limited() { (trap '' XFSZ; ulimit -f "$1"; shift; tune "$@"); } # KIB DIR [FLAG...]: longer files cannot be written
expect_rc 74 limited 100 full
grep -q "full/checkpoints/" "$WORK/out" || fail "the checkpoint that could not be written is not named"
check "COMPLETE after a full disk" test ! -e full/COMPLETE
check "temporary files are left" test -z "$(find full -name '.tmp-*' -print -quit)"
expect_rc 0 tune full
same_run one full

# A small disk with ever more room on it: the job ends with 74 wherever it gets stuck, and goes on when there is more.
on_small_disk() { # KIB_FREE: what of disk/run is there already stays
    local used rc=0
    used=$(df --output=used -k disk | tail -1)
    head -c $(((4096 - used - $1) * 1024)) /dev/zero > disk/others
    tune disk/run > out 2>&1 || rc=$?
    rm disk/others
    if [ $rc -ne 0 ]; then
        stuck=$((stuck + 1))
        [ $rc -eq 74 ] || { cat out >&2; fail "a full disk is exit status 74, not $rc"; }
        grep "^nocturne: disk/run/.*No space left" out || { cat out >&2; fail "the file that could not be written is not named"; }
        check "COMPLETE after a full disk" test ! -e disk/run/COMPLETE
    fi
    expect_rc 0 tune disk/run
    same_run one disk/run
}
mkdir disk
if mount -t tmpfs -o size=4m tmpfs disk 2> /dev/null; then
    trap 'umount "$WORK/disk"; rm -rf "$WORK"' EXIT
    stuck=0
    for free in 8 100 200 400 560; do
        rm -rf disk/run
        on_small_disk $free
    done
    for free in 0 20 90 130 180; do # all steps are done, and what is made of them does not fit
        rm -rf disk/run/{COMPLETE,adapter,adapter.gguf,report.html,training_card.json,training_card.md}
        on_small_disk $free
    done
    check "the small disk was never full" test $stuck -gt 5
    echo "a disk that was full at $stuck points: same bytes"
else
    echo "no small disk here (mount needs root)"
fi

# ---- what does not belong together, and data that teach nothing: a sentence, and not a byte of the finished run changes ----
tiny other --family smollm2 --layers 2 --seed 9
cp -r model words
python3 - << 'EOF'
import json
t = json.load(open("words/tokenizer.json"))
merges = t["model"]["merges"]
merges[-1], merges[-3] = merges[-3], merges[-1]
json.dump(t, open("words/tokenizer.json", "w"))
EOF
grep '"label": true' thumbs.jsonl > praise.jsonl
grep '"label": false' thumbs.jsonl > blame.jsonl
ingest praise
ingest blame
cp -r one/adapter cut
truncate -s -100 cut/adapter_model.safetensors
sums() { find one -type f ! -path '*/.heartbeat/*' -exec sha256sum {} + | sort; }
sums > before
refused() { # RC SENTENCE FLAG...
    local rc=$1 sentence=$2; shift 2
    expect_rc "$rc" timeout -k 5 "$NT_TIMEOUT" "$NOCTURNE" finetune $common "$@" < /dev/null
    grep -q "^nocturne: .*$sentence" "$WORK/out" || { cat "$WORK/out" >&2; fail "expected \"$sentence\": $*"; }
    sums | diff -q before - > /dev/null || fail "files of the finished run changed: $*"
}
to_pairs="--input pairs.h5 --loss dpo --output x"
for model in other words; do
    refused 65 "holds the results of another job" ${flags#"$common"} --output one --model $model
done
refused 78 "trained on another base model" --input rows.h5 --output x --model other --init-adapter one/adapter
refused 78 "trained on another tokenizer" --input rows.h5 --output x --model words --init-adapter one/adapter
refused 78 "trained on another base model" $to_pairs --model other --reference one/adapter
refused 78 "trained on another tokenizer" $to_pairs --model words --reference one/adapter
refused 65 "cut/adapter_model.safetensors" --input rows.h5 --output x --init-adapter cut
refused 66 "nowhere" --input rows.h5 --output x --init-adapter nowhere
refused 2 "train.init_adapter is one/adapter, where this run's own result goes" --input rows.h5 --output one --init-adapter ./one/adapter/ --fresh
check "a GGUF model whose positions no config.json can name" python3 "$SOURCE/tools/make_tiny_model.py" odd --family llama --layers 1 --gguf odd.gguf
refused 69 "odd.gguf: rope_freqs.weight holds factors" --input rows.h5 --output x --model odd.gguf --method full
grep -q "train: " "$WORK/out" && fail "it was trained before it was known that the model cannot be written"
refused 2 "goes on from no train.init_adapter" --input rows.h5 --output x --init-adapter one/adapter --method full
refused 78 "expected a number from 1e-20 to 1" --input rows.h5 --output x --adam-epsilon 0
refused 2 "train.reference is for" --input rows.h5 --output x --reference one/adapter
refused 2 "train.label_smoothing is for" $to_pairs --loss-type hinge --label-smoothing 0.1
refused 2 "train.sft_weight is for" --input rows.h5 --output x --sft-weight 0.5
refused 2 "train.loss_type is for" --input thumbs.h5 --loss kto --output x --loss-type ipo
refused 2 "train.desirable_weight is for" $to_pairs --desirable-weight 2
refused 66 "nowhere.h5" --input nowhere.h5 --output x
refused 65 "24 desirable and 0 undesirable rows" --loss kto --input praise.h5 --output x
refused 65 "0 desirable and 24 undesirable rows" --loss kto --input blame.h5 --output x
refused 65 "nothing to train on" --loss kto --input pairs.h5 --output x
refused 65 "nothing to train on" --loss dpo --input rows.h5 --output x
refused 65 "nothing to train on" --loss dpo --input thumbs.h5 --output x
refused 65 "nothing is held out" --input rows.h5 --output x --eval-since 2200-01-01
check "COMPLETE after a refusal" test ! -e x/COMPLETE
echo "killed and full: same bytes; refused: nothing lost"
