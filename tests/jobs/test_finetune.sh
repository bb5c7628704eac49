#!/usr/bin/env bash
# `nocturne finetune`: what it learns, the same bytes for threads, stops and resumes, other worlds within rounding, every loss, its files in
# generate and merge, damaged checkpoints, and refusals.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
. "$(dirname "$0")/finetune.sh"
cd "$WORK" || exit 1

training_data
common="$shape --batch-size 8 --save-steps 2 --set run.watchdog_s=60"
epochs="--num-train-epochs 2"
tune() { local dir=$1; shift; timeout -k 5 "$NT_TIMEOUT" "$NOCTURNE" finetune $common --input rows.h5 --output "$dir" "$@" < /dev/null; }
events() { python3 "$SOURCE/tests/jobs/tune_check.py" events "$@"; } # DIR EVENT FIELD

# it learns, and says so
expect_rc 0 tune base $epochs --eval-fraction 0.25
for file in COMPLETE metrics.jsonl report.html training_card.json training_card.md adapter.gguf adapter/README.md adapter/adapter_config.json; do
    check "$file is missing" test -s "base/$file"
done
check "the held-out loss did not fall" python3 "$SOURCE/tests/jobs/tune_check.py" falls base

# the card's figures are those of the metrics, also where the run was taken up in its last steps
expect_rc 0 tune counted --max-steps 31 --eval-fraction 0.25
check "the card counts otherwise than the metrics" python3 "$SOURCE/tests/jobs/tune_check.py" recount counted
cp counted/checkpoints/step-00000030.h5 nan.h5
if with_h5py 'import h5py, numpy
h5py.File("nan.h5", "r+").attrs["means"] = numpy.bytes_("nan nan")'; then
    expect_rc 65 "$NOCTURNE" inspect nan.h5
    says "nan.h5: a count or mean of its state is out of range or no number"
fi
rm counted/COMPLETE counted/training_card.json counted/checkpoints/step-00000031.h5
expect_rc 0 tune counted --max-steps 31 --eval-fraction 0.25
says "resuming after step 30 of 31"
check "a resumed run's card counts otherwise than its metrics" python3 "$SOURCE/tests/jobs/tune_check.py" recount counted
rm counted/COMPLETE
expect_rc 0 tune counted --max-steps 31 --eval-fraction 0.25 # no step is left, so there is no speed
says "no step of them in this attempt"
check "the speed of no step" grep -q '"tokens_per_s": null, "mfu": null' counted/training_card.json

# what goes by time says so where rows have none, as answers of generate without ingest --created
sed 's/"created": [0-9]*, //' rows.jsonl > undated.jsonl
ingest undated
expect_rc 0 "$NOCTURNE" finetune $common --input undated.h5 --output undated --half-life-days 3 --max-steps 2
says "48 rows have no time: train.half_life_days and train.eval_since pass over them"

# the same bytes: one thread, other recompute; without packing and in other micro-batches within rounding
expect_rc 0 tune one $epochs --eval-fraction 0.25 --threads 1
same_adapter base one
for policy in none full; do
    expect_rc 0 tune $policy $epochs --eval-fraction 0.25 --recompute $policy
    same_adapter base $policy
done
expect_rc 0 tune alone $epochs --eval-fraction 0.25 --packing=false
near base alone 2e-2
expect_rc 0 tune wide $epochs --eval-fraction 0.25 --micro-batch-tokens 1000
near base wide 2e-2

# every setting of the optimizer reaches it (what it makes of them: golden/train)
expect_rc 0 tune adam --max-steps 6
for flag in adam-beta1=0.91 adam-beta2=0.99 adam-epsilon=1e-4 weight-decay=0.1 max-grad-norm=0.5 learning-rate=0.011 warmup-ratio=0.5 lr-scheduler-type=constant; do
    expect_rc 0 tune adam.$flag --max-steps 6 --$flag
    cmp -s adam/adapter/adapter_model.safetensors adam.$flag/adapter/adapter_model.safetensors && fail "--$flag changed nothing"
done

# steps that are left out, and the mean of the losses that count; as many steps as epochs take, and as many checkpoints as are wanted
expect_rc 0 tune spikes --num-train-epochs 5 --spike-factor 0.5 --on-nan skip --learning-rate 0.005 --save-total-limit 3
check "other steps are left out than those of spikes" python3 "$SOURCE/tests/jobs/tune_check.py" spikes spikes 0.5
check "other checkpoints are kept: $(ls spikes/checkpoints)" test "$(ls spikes/checkpoints | xargs)" = "step-00000026.h5 step-00000028.h5 step-00000030.h5"
expect_rc 65 tune spikes --num-train-epochs 5 --spike-factor 0.5 --learning-rate 0.005 --fresh
says "the gradient norm is a spike .*conversations of the batch: rows.h5 [0-9]"
expect_rc 0 tune uneven --batch-size 7 --num-train-epochs 1 --eval-fraction 0.25
says "36 rows in batches of 7: 6 steps"
# a held-out loss is of its rows, whatever batches they come in
check "the held-out loss depends on the batch" test "$(events base eval eval_loss | sed -n 1p | cut -c1-5)" = "$(events uneven eval eval_loss | sed -n 1p | cut -c1-5)"

# worlds
for n in 2 4; do
    expect_rc 0 mpi $n "$NOCTURNE" finetune $common $epochs --input rows.h5 --output dp$n --eval-fraction 0.25 --threads 1
    near base dp$n 2e-2
done
for n in 2 3; do
    expect_rc 0 mpi $n "$NOCTURNE" finetune $common $epochs --input rows.h5 --output tp$n --eval-fraction 0.25 --threads 1 --tp $n
    near base tp$n 5e-2
done

# a base in 4 and 8 bits; all weights need bf16
for type in int4 int8; do
    expect_rc 0 tune $type $epochs --eval-fraction 0.25 --weight-dtype $type
    check "$type: the held-out loss did not fall" python3 "$SOURCE/tests/jobs/tune_check.py" falls $type
    cmp -s base/adapter/adapter_model.safetensors $type/adapter/adapter_model.safetensors && fail "$type weights changed nothing: they were not used"
    expect_rc 78 tune full.$type $epochs --method full --weight-dtype $type
    check "$type: why not all weights" grep -q "model.weight_dtype = $type keeps them as integers" out
done

# dropout: masks follow the sample, whatever the packing
expect_rc 0 tune drop $epochs --lora-dropout 0.2
expect_rc 0 tune drop1 $epochs --lora-dropout 0.2 --threads 1
same_adapter drop drop1
expect_rc 0 tune drop_wide $epochs --lora-dropout 0.2 --micro-batch-tokens 1000
near drop drop_wide 2e-2
expect_rc 0 mpi 2 "$NOCTURNE" finetune $common $epochs --input rows.h5 --output drop_tp2 --lora-dropout 0.2 --threads 1 --tp 2
near drop drop_tp2 1e-3 # other masks: 9e-3
expect_rc 0 tune dry $epochs
cmp -s drop/adapter/adapter_model.safetensors dry/adapter/adapter_model.safetensors && fail "dropout changes nothing"

# preferences: margins go the right way; the reference may be an adapter
preference() { # LOSS TYPE DIR
    expect_rc 0 "$NOCTURNE" finetune $common --loss "$1" --loss-type "$2" --input "$4" --output "$3" --num-train-epochs 3
    check "$1 $2: the margin did not grow" python3 "$SOURCE/tests/jobs/tune_check.py" grows "$3"
}
for type in sigmoid ipo hinge; do preference dpo $type dpo.$type pairs.h5; done
check "hinge computed the reference of sigmoid again" grep -q 'are those of pairs.h5.reference-' out
preference kto sigmoid kto thumbs.h5
# the reference is kept, beside the corpus for all runs over it, or in the run's directory (also where the corpus' cannot be written): a run
# that finds its sums goes on with the same bytes, a damaged file is computed again
check "no reference beside the corpus" test -s "$(ls pairs.h5.reference-*)"
# of a directory of corpora beside its first file, however the directory is named
mkdir corpora
cp pairs.h5 corpora/a.h5
expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input corpora/ --output corpora.run --max-steps 1
expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input corpora --output corpora.run --max-steps 1 --fresh
says "are those of corpora/a.h5.reference-"
for place in corpus run; do
    rm -f pairs.h5.reference-*
    for state in none whole torn; do
        rm -rf kept/checkpoints kept/COMPLETE
        expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output kept --num-train-epochs 3 --reference-cache $place
        same_adapter dpo.sigmoid kept
        case $state in
        none) file=$(find . -name 'pairs.h5.reference-*' -o -path './kept/reference-train.h5')
            [ "$(wc -w <<< "$file")" = 1 ] || fail "$place: kept at: $file" ;;
        whole) grep -q "are those of ${file#./}" out || fail "$place: the kept reference was not used"
            truncate -s -100 "$file" ;;
        torn) grep -q "computed again" out || fail "$place: the damaged reference was used" ;;
        esac
    done
    rm -rf kept
done
# numbers that somebody else wrote there, with their checksums, are not taken for the reference's
tune_pairs() { expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output "$1" --num-train-epochs 3; }
tune_pairs kept
rm -r kept
file=$(ls pairs.h5.reference-*)
if with_h5py 'import sys, h5py
with h5py.File(sys.argv[1], "r+") as f:
    f["logp"][3] = f["logp"][3] - 1' "$file"; then
    tune_pairs kept
    says "computed again: $file: /logp is not what was written there"
    same_adapter dpo.sigmoid kept
fi
# where the place beside the corpus cannot be written, the run's directory has them
rm -rf kept && tune_pairs kept
file=$(ls -d pairs.h5.reference-*) && rm -rf kept "$file" && mkdir "$file"
tune_pairs kept
check "the run does not say where the reference is" grep -q 'are kept in kept alone' out
check "no reference in the run's directory" test -s kept/reference-train.h5
same_adapter dpo.sigmoid kept
rmdir "$file"
# a stop while the reference is asked: exit 85, and the next run goes on behind what was kept, to the same bytes
for i in $(seq 24); do sed "s/\"prompt\": \"/&$i /" pairs.jsonl; done > many.jsonl
ingest many
many="--loss dpo --input many.h5 --max-steps 3"
expect_rc 0 "$NOCTURNE" finetune $common $many --output many
rm many.h5.reference-*
expect_rc 85 env SLURM_JOB_END_TIME="$(date +%s)" "$NOCTURNE" finetune $common $many --output stopped
grep -q "stopped after the reference of 256 of 1152 rows" out || fail "the reference is not stopped"
expect_rc 0 "$NOCTURNE" finetune $common $many --output stopped
grep -q "of 256 rows are those of stopped/reference-train.part.h5" out || fail "what was asked before the stop is not used"
same_adapter many stopped
check "the part is still there" test ! -e stopped/reference-train.part.h5
# and where it was killed: what was asked is written now and then, and told of
rm -rf many.h5.reference-* stopped
"$NOCTURNE" finetune $common $many --output stopped > out.killed 2>&1 < /dev/null &
pid=$!
for i in $(seq 1000); do [ -e stopped/reference-train.part.h5 ] && break; sleep 0.01; done
kill -9 $pid
wait $pid 2> /dev/null
expect_rc 0 "$NOCTURNE" finetune $common $many --output stopped
grep -q "of [0-9]* rows are those of stopped/reference-train.part.h5" out || fail "what was asked before a kill is not used"
grep -q "progress: reference rows 1152/1152 .* row/s" out || fail "nothing is told while the reference is asked"
same_adapter many stopped
check "the part is still there" test ! -e stopped/reference-train.part.h5
# where the part cannot be written the run warns and goes on; a stop, which would lose what was asked, does not
rm -rf many.h5.reference-* stopped
mkdir -p stopped/reference-train.part.h5/in_the_way
expect_rc 74 env SLURM_JOB_END_TIME="$(date +%s)" "$NOCTURNE" finetune $common $many --output stopped
expect_rc 0 "$NOCTURNE" finetune $common $many --output stopped
grep -q "of 256 rows are in memory alone: .*reference-train.part.h5" out || fail "a part that cannot be written is not told of"
same_adapter many stopped

# kto over one and the same answer has no mismatched pair; told once, also by ranks
sed 's/"completion": "[^"]*"/"completion": "all is well"/' thumbs.jsonl > alike.jsonl
ingest alike
for ranks in 1 2; do
    expect_rc 0 mpi $ranks "$NOCTURNE" finetune $common --loss kto --input alike.h5 --output alike$ranks --num-train-epochs 2 --threads 1
    check "not told once that there is no pair" test "$(grep -c 'batch behind step 0 has the same completion' out)" -eq 1
done

# kto with all weights: what the base says of the mismatched pairs of all steps is asked beforehand. Without updates no step diverges; a resumed
# run, which asks again, ends with the same bytes; the divergence is there, and other ranks find the same
all="--loss kto --method full --input thumbs.h5 --num-train-epochs 3 --eval-fraction 0.25"
expect_rc 0 "$NOCTURNE" finetune $common $all --learning-rate 0 --output still
check "kto with all weights: a model at rest diverges" python3 "$SOURCE/tests/jobs/tune_check.py" kl still 0 1e-4
expect_rc 0 "$NOCTURNE" finetune $common $all --learning-rate 0.001 --output kto.full
check "kto with all weights: the margin did not grow" python3 "$SOURCE/tests/jobs/tune_check.py" grows kto.full
grep -qE "held-out loss [0-9.]+, margin [0-9.]+ over" out || fail "the log does not tell the held-out margin"
check "kto with all weights: nothing diverges" python3 "$SOURCE/tests/jobs/tune_check.py" kl kto.full 1 1000
cp kto.full/model/model.safetensors kto.full.model
rm -rf kto.full/COMPLETE kto.full/model "kto.full/checkpoints/$(ls kto.full/checkpoints | tail -1)" thumbs.h5.reference-*
expect_rc 0 "$NOCTURNE" finetune $common $all --learning-rate 0.001 --output kto.full
grep -q "resuming after step [1-9]" out || fail "kto with all weights: nothing was resumed"
cmp kto.full.model kto.full/model/model.safetensors || fail "kto with all weights: a resumed run made another model"
rm -f thumbs.h5.reference-*
expect_rc 0 mpi 2 "$NOCTURNE" finetune $common $all --learning-rate 0.001 --output kto.full2 --threads 1
check "kto with all weights: two ranks make another run" python3 "$SOURCE/tests/jobs/tune_check.py" losses kto.full kto.full2 1e-2
expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output chained --init-adapter dpo.sigmoid/adapter --reference dpo.sigmoid/adapter
says "goes on from dpo.sigmoid/adapter: rank 4, scale 2; train.lora_r, .* do not count beside it"
check "a first step from its own reference has a margin" python3 "$SOURCE/tests/jobs/tune_check.py" level chained
# an adapter of one layer, as PEFT makes with layers_to_transform: what it has is trained, and the result has no more
check "an adapter of one layer" python3 "$SOURCE/tests/jobs/lora.py" make model upper --layer 1 --targets q_proj,down_proj
for ranks in 1 3; do
    expect_rc 0 mpi $ranks "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output upper$ranks --init-adapter upper --reference upper \
        --reference-cache run --threads 1 --tp $ranks
    check "a first step from an adapter of one layer has a margin" python3 "$SOURCE/tests/jobs/tune_check.py" level upper$ranks
    expect_rc 0 "$NOCTURNE" inspect upper$ranks/adapter
    says "^tensors +4 F32"
    says "^layers +1 with adapters"
done
cmp -s upper/adapter_model.safetensors upper1/adapter/adapter_model.safetensors && fail "an adapter of one layer was not trained"
# a reference says the same, whatever is trained: an adapter as wide, a narrow one on two linears, all weights
cp -r dpo.sigmoid/adapter judge
judged() { # DIR FLAG...
    local dir=$1; shift
    expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output "$dir" --reference judge --reference-cache run --max-steps 1 "$@"
    cmp judged/reference-train.h5 "$dir/reference-train.h5" || fail "$*: the reference says something else"
}
judged judged
judged judged.narrow --lora-r 1 --target-modules q_proj,down_proj
judged judged.full --method full
# it is that of the weights in use: what bf16 weights say is not taken for what int4 weights say
rm -f pairs.h5.reference-*
expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output said.bf16 --max-steps 1
expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output said.int4 --max-steps 1 --weight-dtype int4
grep -q 'log-probabilities of .* rows (train) are computed once' out || fail "int4 weights took the reference of bf16 weights"
# nor what int4 weights say that are grouped otherwise, because the model is divided otherwise
expect_rc 0 mpi 2 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output said.int4.tp2 --max-steps 1 --weight-dtype int4 --threads 1 --tp 2
check "a divided int4 model begins with a margin" python3 "$SOURCE/tests/jobs/tune_check.py" level said.int4.tp2
# a fresh start leaves nothing of what another method wrote
expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output judged.full --max-steps 1 --fresh
check "a model beside the adapter of a fresh start" test -e judged.full/adapter -a ! -e judged.full/model
# an adapter is what it holds, not where it lies
expect_rc 0 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output judged --reference ./judge --reference-cache run --max-steps 1
grep -q 'judged is complete already' out || fail "the same reference by another name is another job"
rm -r judge && cp -r dpo.ipo/adapter judge
expect_rc 65 "$NOCTURNE" finetune $common --loss dpo --input pairs.h5 --output judged --reference judge --reference-cache run --max-steps 1
expect_rc 0 mpi 2 "$NOCTURNE" finetune $common --loss kto --input thumbs.h5 --output kto.dp2 --num-train-epochs 3 --threads 1
near kto kto.dp2 5e-2

# longer than the model's positions is too long, whatever max_length allows
python3 -c 'import json; print(json.dumps({"prompt": "night " * 3000, "completion": "well then"}))' > long.jsonl
ingest long
expect_rc 0 "$NOCTURNE" finetune $common --max-length 8192 --input long.h5 --output long --max-steps 1
grep -q 'train.max_length 8192: the model has 2048 positions' out || fail "a longer max_length is taken without a word"
expect_rc 65 "$NOCTURNE" finetune $common --max-length 8192 --input long.h5 --output long --max-steps 1 --too-long error

# what it made: generate with the adapter, and merged, say the same; on another base it is refused
echo '{"messages": [{"role": "user", "content": "night shift tape"}], "max_tokens": 8, "temperature": 0}' > ask.jsonl
expect_rc 0 "$NOCTURNE" generate --model model --adapter base/adapter --input ask.jsonl --output g1
expect_rc 0 "$NOCTURNE" merge --model model --adapter base/adapter --output merged
expect_rc 0 "$NOCTURNE" generate --model merged --input ask.jsonl --output g2
check "adapter and merged model answer differently" python3 "$SOURCE/tests/jobs/tune_check.py" answers g1 g2 well
tiny other --family smollm2 --layers 2 --seed 9
expect_rc 78 "$NOCTURNE" generate --model other --adapter base/adapter --input ask.jsonl --output g3

# few rows: one step, whose learning rate is 0, and each row many times over
expect_rc 0 tune few --batch-size 100
for why in "nothing is learned; set train.warmup_ratio = 0" "a batch of 100 takes each of 48 rows several times"; do
    grep -q "$why" out || fail "a run of one step does not say: $why"
done
expect_rc 0 tune few --batch-size 48 --warmup-ratio 0 --fresh
grep -q " warn .* train: " out && fail "a run that learns is warned of"

# every weight: a model of its own, on one rank and two
expect_rc 0 tune full $epochs --eval-fraction 0.25 --method full --learning-rate 0.003 --fresh
check "the held-out loss did not fall" python3 "$SOURCE/tests/jobs/tune_check.py" falls full
expect_rc 0 "$NOCTURNE" generate --model full/model --input ask.jsonl --output g4
grep -q well g4/results.jsonl || fail "the model with all weights trained says something else"
expect_rc 0 mpi 2 "$NOCTURNE" finetune $common $epochs --eval-fraction 0.25 --method full --learning-rate 0.003 --input rows.h5 --output full2 --threads 1 --tp 2
expect_rc 0 "$NOCTURNE" generate --model full2/model --input ask.jsonl --output g5
grep -q well g5/results.jsonl || fail "two ranks made another model"
expect_rc 0 mpi 2 "$NOCTURNE" finetune $common $epochs --method full --learning-rate 0.003 --input rows.h5 --output full3 --threads 1

# stops: exit 85 with a checkpoint, the same command goes on to the same bytes
long="--num-train-epochs 20 --eval-fraction 0.25"
expect_rc 0 tune whole $long
for signal in USR1 TERM; do
    rm -rf part
    "$NOCTURNE" finetune $common $long --input rows.h5 --output part > out.part 2>&1 < /dev/null &
    pid=$! rc=0
    for i in $(seq 400); do grep -qs '"event":"step"' part/metrics.jsonl && break; sleep 0.02; done
    kill -s $signal $pid
    wait $pid || rc=$?
    [ $rc -eq 85 ] || { cat out.part >&2; fail "$signal: exit status $rc, expected 85"; }
    check "$signal: COMPLETE must not exist" test ! -e part/COMPLETE
    expect_rc 0 tune part $long
    grep -q "resuming after step [1-9]" "$WORK/out" || fail "$signal: nothing was resumed"
    same_adapter whole part
    check "$signal: other steps in metrics.jsonl" test "$(events part step loss)" = "$(events whole step loss)"
done
rm -rf part
expect_rc 85 env SLURM_JOB_END_TIME=$(($(date +%s) + 60)) "$NOCTURNE" finetune $common $long --input rows.h5 --output part --set run.stop_margin_s=120
grep -q '"event":"eval"' part/metrics.jsonl && fail "it evaluated when no time was left"
expect_rc 0 mpi 2 "$NOCTURNE" finetune $common $long --input rows.h5 --output part --threads 1
near whole part 5e-2

# what inspect says of the things in the directory of a run, and where it is asked or used for another thing
inspect() { local rc=$1; shift; expect_rc "$rc" "$NOCTURNE" inspect "$@"; }
inspect 0 whole/adapter
says '^rank +4, alpha 8, scale 2'
says '^tensors +28 F32'
says "^base sha256 +$(sed -n 's/^| base sha256 | \(.*\) |/\1/p' whole/adapter/README.md | head -1)"
inspect 0 whole/adapter.gguf
says '^modules +attn_k, attn_output, attn_q, attn_v, ffn_down, ffn_gate, ffn_up'
says '^rank +4, alpha 8, scale 2'
checkpoint=whole/checkpoints/$(ls whole/checkpoints | tail -1)
inspect 0 "$checkpoint"
says "^step +$(sed 's/.*step-0*\(.*\).h5/\1/' <<< "$checkpoint"), 0 left out"
says '^trains +an adapter of rank 4'
cp -r "$checkpoint" torn.h5 && truncate -s -1000 torn.h5
inspect 65 torn.h5
cp -r whole listed && rm -rf listed/adapter
cp torn.h5 "listed/checkpoints/$(basename "$checkpoint")"
for folder in listed/checkpoints listed/checkpoints//; do
    inspect 0 $folder
    check "$folder: a line each" test "$(grep -c '^checkpoint  ' out)" -eq "$(ls listed/checkpoints | wc -l)"
    says "^checkpoint +listed/$(basename "$(dirname "$checkpoint")")/$(basename "$checkpoint"): damaged: "
    says '^checkpoint +listed/checkpoints/step-[0-9]*.h5: [0-9]* steps, [0-9]* samples, loss [0-9.]*, whole$'
done
(cd listed/checkpoints && "$NOCTURNE" inspect .) > out 2>&1 || fail "the folder one stands in"
says '^checkpoint +/.*/listed/checkpoints/step-'
rm -f listed/checkpoints/*
cp -r model listed/model && mkdir listed/model/in && cp -r model listed/model/in/checkpoints
inspect 0 listed/model/in/checkpoints
inspect 66 listed/checkpoints
says 'listed/checkpoints: no checkpoint of a training run'
inspect 2 whole
says 'output directory of a training run.* whole/adapter'
cp -r whole/adapter odd && sed -i 's/"r": 4/"r": 8/' odd/adapter_config.json
inspect 65 odd
says 'odd: adapter_config.json says rank 8'
for what in adapter adapter.gguf; do
    "$NOCTURNE" score --model whole/$what --input rows.jsonl --output x.score >out 2>&1 && fail "a model in whole/$what"
    says "whole/$what .*LoRA adapter and no model; give the model it was trained on as --model"
done

for what in adapter adapter.gguf; do
    expect_rc 69 "$NOCTURNE" plan --model whole/$what --in 9 --out 9
    says "whole/$what is a LoRA adapter and no model; give the model it was trained on as --model"
done
expect_rc 66 "$NOCTURNE" plan --model whole --in 9 --out 9
says 'whole holds no weights'

# damage: a torn newest checkpoint is passed over, all torn is an error, another job's is refused
cp -r whole torn
rm -rf torn/COMPLETE torn/adapter torn/adapter.gguf
truncate -s -1000 "torn/checkpoints/$(ls torn/checkpoints | tail -1)"
expect_rc 0 tune torn $long
grep -q "passing over a damaged checkpoint" "$WORK/out" || fail "nothing was said of the damaged checkpoint"
same_adapter whole torn
rm -r torn/COMPLETE torn/adapter
mapfile -t names < <(ls torn/checkpoints)
cp whole/checkpoints/"$(ls whole/checkpoints | head -1)" "torn/checkpoints/${names[-1]}" # another step's under its name
[ "${names[0]}" = "${names[-1]}" ] && fail "one checkpoint only"
expect_rc 0 tune torn $long
says "passing over a damaged checkpoint: torn/checkpoints/${names[-1]}: is of step [0-9]+ by its state"
same_adapter whole torn
rm torn/COMPLETE
for f in torn/checkpoints/*; do truncate -s -1000 "$f"; done
expect_rc 65 tune torn $long
grep -q -- "--fresh" "$WORK/out" || fail "the remedy for damaged checkpoints is missing"
expect_rc 0 tune whole $long
grep -q "complete already" "$WORK/out" || fail "a finished run ran again"
expect_rc 65 tune whole $long --learning-rate 0.02
grep -q "another job" "$WORK/out" || fail "another job's results are not protected"
rm whole/COMPLETE
expect_rc 65 tune whole $long --learning-rate 0.02
grep -q "belongs to another job" "$WORK/out" || fail "another job's checkpoint is not refused"
says "a retention that ended changes the data too"
expect_rc 0 tune whole $epochs --learning-rate 0.02 --fresh
grep -q "resuming" "$WORK/out" && fail "--fresh resumed"

# several corpora, with blanks between them
expect_rc 0 "$NOCTURNE" finetune $common --input "rows.h5, thumbs.h5, " --output both --max-steps 1
says "conversations 96, seen 96"
digest=$({ echo "nocturne dataset 1"; for name in rows thumbs; do "$NOCTURNE" inspect $name.h5 | sed -n 's/^content sha256 //p'; done; } | sha256sum | cut -c1-64)
check "the card's data digest is not that of the corpora" grep -q "\"dataset_sha256\": \"$digest\"" both/training_card.json

# refusals
useless() { expect_rc 2 tune x "$@"; says "is for train\..* leave it out"; }
useless --sft-weight 1
useless --undesirable-weight 2
useless --loss dpo --rated-only
useless --loss dpo --desirable-weight 2
useless --loss kto --loss-type hinge
useless --method full --lora-dropout 0.1
expect_rc 78 "$NOCTURNE" finetune $common --loss kto --input thumbs.h5 --output x --batch-size 1
says "every batch of kto holds both classes"
expect_rc 2 "$NOCTURNE" finetune --model model --output x
expect_rc 78 tune x --target-modules q_prog
grep -q "q_proj" "$WORK/out" || fail "known linears are not named"
expect_rc 65 tune x --learning-rate 9 --max-grad-norm 0 --lora-alpha 99999 --num-train-epochs 50
grep -q "not finite" "$WORK/out" || fail "numbers that are not finite are not named"
expect_rc 66 "$NOCTURNE" finetune $common --input nowhere.h5 --output x
grep -q "prepare: " out && fail "rows of a file that is not there are counted"
# steps that are left out: a run of mostly those has no result, not in a second attempt either
hot="--learning-rate 9 --max-grad-norm 0 --lora-alpha 99999 --num-train-epochs 5 --on-nan skip"
for attempt in 1 2; do
    expect_rc 65 tune hot $hot
    says "16 of the run's 30 steps are left out"
done
check "an adapter of hardly a step" test ! -e hot/adapter -a ! -e hot/COMPLETE
expect_rc 0 "$NOCTURNE" ingest --input rows.jsonl --output silent.h5
expect_rc 65 "$NOCTURNE" finetune $common --input silent.h5 --output x2
grep -q "no consent" "$WORK/out" || fail "rows without consent are not counted"
echo "finetune: learns, resumes, agrees"
