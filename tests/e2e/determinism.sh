# The same seed gives the same bytes, metrics, state and checkpoints, for any number of threads and for
# a run that is killed (kill -9) at any moment and resumed: pre-training and fine-tuning with everything
# random that a recipe knows.
net="$SOURCE/tests/parity/train_small.yaml --set input.channels=1 --set input.height=32
     --set input.width=48 --set head.classes=4"
"$CNXC" build $net -o net
"$CC" "$SOURCE/tests/e2e/make_images.c" -o make_images
mkdir data
./make_images data 76 20 4 32 48 # the last batch of an epoch is short

# same A B: two runs left the same files.
same() {
    [ "$(ls "$1")" = "$(ls "$2")" ] || fail "$1 and $2 hold different files: $(ls "$1" "$2")"
    for f in $(ls "$1"); do cmp "$1/$f" "$2/$f" || fail "$f of $2 differs"; done
}
# killed RUN MOMENTS COMMAND...: starts, kills after each number of milliseconds and resumes, with
# another number of threads each time; the last start runs to its end.
killed() {
    run=$1; moments=$2; shift 2
    threads=1
    for ms in $moments; do
        OMP_NUM_THREADS=$threads "$@" --out "$run" --resume >/dev/null 2>&1 &
        pid=$!
        sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
        kill -9 $pid 2>/dev/null || true
        wait $pid 2>/dev/null || true
        threads=$((threads % 4 + 1))
    done
    "$@" --out "$run" --resume >/dev/null 2>err.txt || fail "resuming $run: $(cat err.txt)"
}
# milliseconds COMMAND...
milliseconds() {
    begin=$(date +%s%N)
    "$@" >/dev/null 2>&1 || fail "$*"
    echo $((($(date +%s%N) - begin) / 1000000))
}
# moments MS SEED: five pseudo-random moments of a run that takes so long.
moments() { awk -v ms="$1" -v seed="$2" 'BEGIN { srand(seed); for (i = 0; i < 5; i++) print int(rand() * ms) }'; }

common="--data data --batch 16 --save-every 2 --eval-every 5 --quiet"
pretrain="./net pretrain $common --seed 5 --steps 12 --lr 2e-3"
finetune="./net finetune $common --init p1/last.safetensors --seed 6 --steps 12 --lr 2e-3
          --drop-path 0.3 --mixup 0.4 --cutmix 0.6 --smoothing 0.1 --ema 0.9 --clip 1 --erase 0.25
          --rand-augment m9-mstd0.5-inc1"
for threads in 1 2 3 4; do
    OMP_NUM_THREADS=$threads $pretrain --out p$threads >/dev/null
    OMP_NUM_THREADS=$threads $finetune --out f$threads >/dev/null
    same p1 p$threads
    same f1 f$threads
done
for run in p1 f1; do
    [ "$(wc -l <$run/metrics.jsonl)" -eq 12 ] || fail "$run: $(wc -l <$run/metrics.jsonl) rows of metrics"
    ls $run/state-* >/dev/null || fail "no state in $run"
done
$pretrain --seed 8 --out other >/dev/null 2>&1 || true
cmp -s p1/last.safetensors other/last.safetensors && fail "the seed changes nothing"

ms=$(milliseconds $pretrain --out timed)
killed pk "$(moments "$ms" 1)" $pretrain
same p1 pk
ms=$(milliseconds $finetune --out timed-too)
killed fk "$(moments "$ms" 2)" $finetune
same f1 fk
same f1 timed-too
