# The whole way on tiny data: pre-train, fine-tune, evaluate, look at reconstructions, probe, nearest
# neighbours, embed; what is wrong with data, masks, classes or states is said.
export OMP_NUM_THREADS=1
net="$SOURCE/tests/parity/train_small.yaml --set input.channels=1 --set input.height=32
     --set input.width=48 --set head.classes=4"
"$CNXC" build $net -o net
"$CNXC" build $net -o infer-only --programs infer
"$CC" "$SOURCE/tests/e2e/make_images.c" -o make_images
mkdir data three empty
./make_images data 160 40 4 32 48
./make_images three 24 8 3 32 48
value() { sed -n "s/.*\"$2\": \([-0-9.e+]*\).*/\1/p" "$1"; }
# lower A B, above A B: of real numbers
lower() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }

# ---- pre-training learns; the encoder goes on
./net pretrain --data data --out pre --epochs 12 --batch 16 --lr 3e-3 --warmup-epochs 1 --seed 1 \
    --save-every 40 --quiet >pre.txt
first=$(head -1 pre/metrics.jsonl | sed 's/.*"loss": \([0-9.e+-]*\).*/\1/')
final=$(tail -1 pre/metrics.jsonl | sed 's/.*"loss": \([0-9.e+-]*\).*/\1/')
lower "$final" "$first" || fail "pre-training does not learn: $first to $final"
[ "$(wc -l <pre/metrics.jsonl)" -eq 120 ] || fail "rows: $(wc -l <pre/metrics.jsonl)"
[ "$(wc -l <pre/metrics.csv)" -eq 121 ] || fail "csv rows: $(wc -l <pre/metrics.csv)"
"$CNXC" weights inspect pre/last.safetensors >names.txt
for name in encoder.stages.0.0.dwconv.weight mask_token proj.weight decoder.0.grn.gamma pred.bias; do
    grep -q "^$name " names.txt || fail "last.safetensors lacks $name"
done
! grep -q '^encoder.norm\|^head' names.txt || fail "a pre-training checkpoint has a head"

./net finetune --data data --init pre/last.safetensors --out fine --epochs 12 --batch 16 --lr 3e-3 \
    --warmup-epochs 1 --seed 2 --quiet >fine.txt 2>fine.err
grep -qi 'decoder' fine.err || fail "fine-tuning does not say that the decoder is left out: $(cat fine.err)"
grep -qi 'head' fine.err || fail "fine-tuning does not say that the head is new: $(cat fine.err)"
"$CNXC" weights inspect fine/last.safetensors >names.txt
grep -q '^stages.0.0.dwconv.weight ' names.txt || fail "fine/last.safetensors has no official names"
grep -q '^head.weight ' names.txt || fail "fine/last.safetensors has no head"

# ---- evaluation, features
./net eval --weights fine/best.safetensors --data data --json >eval.json
top1=$(value eval.json top1)
lower 60 "$top1" || fail "top-1 is $top1 % of four classes"
./net probe --weights pre/last.safetensors --data data --json >probe.json
./net knn --weights pre/last.safetensors --data data --json >knn.json
./net embed --weights fine/last.safetensors --data data --output e.npy --quiet
[ -s e.npy ] || fail "no features"
./net reconstruct --weights pre/last.safetensors --data data --output r.png --limit 4 >/dev/null
[ "$(head -c 4 r.png | tail -c 3)" = PNG ] || fail "no picture of reconstructions"
./net info >info.txt
grep -q pretrain info.txt || fail "info does not tell of pre-training"

# ---- a run that was stopped goes on; SIGTERM saves
./net pretrain --data data --out stopped --epochs 1000 --batch 16 --lr 1e-3 --seed 1 --quiet \
    >stop.txt 2>stop.err &
pid=$!
for i in 1 2 3 4 5 6 7 8 9 10; do
    [ -s stopped/metrics.jsonl ] && break
    sleep 0.2
done
kill -TERM $pid
status=0
wait $pid || status=$?
[ $status -eq 143 ] || fail "SIGTERM ends with status $status"
ls stopped/state-*.safetensors >/dev/null || fail "SIGTERM saves no state"
steps=$(wc -l <stopped/metrics.jsonl)
must_fail "resume" ./net pretrain --data data --out stopped --epochs 1000 --batch 16 --lr 1e-3 --seed 1
# other options than those of the state
must_fail "batch" ./net pretrain --data data --out stopped --epochs 1000 --batch 8 --lr 1e-3 --seed 1 --resume
# a damaged state: the one before it is taken; all damaged: an error
cp -r pre damaged
newest=$(ls damaged/state-* | sort | tail -1)
head -c 1000 "$newest" >cut && mv cut "$newest"
./net pretrain --data data --out damaged --epochs 12 --batch 16 --lr 3e-3 --warmup-epochs 1 --seed 1 \
    --save-every 40 --quiet --resume >/dev/null 2>damaged.err
grep -q damaged damaged.err || fail "a damaged state is not reported: $(cat damaged.err)"
cmp pre/last.safetensors damaged/last.safetensors
for f in damaged/state-*; do head -c 1000 "$f" >cut && mv cut "$f"; done
must_fail "no state file is whole" ./net pretrain --data data --out damaged --epochs 12 --batch 16 \
    --lr 3e-3 --warmup-epochs 1 --seed 1 --resume

# ---- what is wrong is said
must_fail "nowhere" ./net pretrain --data nowhere --out x
must_fail "empty" ./net pretrain --data empty --out x
must_fail "--init" ./net finetune --data data --out x
must_fail "its weights are in last.safetensors" ./net finetune --data data \
    --init "$(ls pre/state-*.safetensors | tail -1)" --out x
must_fail "its weights are in last.safetensors" ./net eval --data data \
    --weights "$(ls pre/state-*.safetensors | tail -1)"
must_fail "nothing.safetensors" ./net finetune --data data --init nothing.safetensors --out x
must_fail "head.classes=3" ./net finetune --data three --init pre/last.safetensors --out x
must_fail "fcmae.mask_ratio=0.75" ./net pretrain --data data --out x --mask-ratio 0.75
must_fail "without the program pretrain" ./infer-only pretrain --data data --out x
must_fail "recipe" ./net pretrain --data data --out x --recipe finetune
must_fail "recipe" ./net pretrain --data data --out x --recipe none-such
must_fail "--batch" ./net pretrain --data data --out x --batch 0
must_fail "--betas" ./net pretrain --data data --out x --betas 0.9
must_fail "--data" ./net pretrain --out x
printf 'x' >file
must_fail "file" ./net pretrain --data data --out file
