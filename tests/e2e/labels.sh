# Several labels a picture: binary cross-entropy trains on sets from shards and from metadata, is
# validated by mean average precision, and gives the same bytes for any number of threads; what does
# not take sets says so.
base="$SOURCE/tests/parity/train_small.yaml --set input.channels=1 --set input.height=32
      --set input.width=48 --set head.classes=4"
"$CNXC" build $base --set recipes.train.loss=bce --set recipes.finetune.loss=bce -o net
"$CNXC" build $base -o softmax
"$CC" -std=c17 "$SOURCE/tests/e2e/make_sets.c" -o make_sets
mkdir -p data/train data/test shards
./make_sets data/train 0 160 4 32 48
./make_sets data/test 1000 40 4 32 48
(cd data/train && ls | grep -v jsonl | tar cf ../../shards/a-train-0.tar -T -)
(cd data/test && ls | grep -v jsonl | tar cf ../../shards/a-val-0.tar -T -)
value() { sed -n "s/.*\"$2\": \([-0-9.e+]*\).*/\1/p" "$1"; }
lower() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }

# ---- everything random: the same bytes for any number of threads, from metadata by name and from
# ---- shards by number
random="--steps 12 --batch 16 --mixup 0.2 --cutmix 0.2 --smoothing 0.1 --seed 3 --eval-every 5 --quiet"
OMP_NUM_THREADS=1 ./net train --data data --out r1 $random >/dev/null
OMP_NUM_THREADS=3 ./net train --data data --out r3 $random >/dev/null
OMP_NUM_THREADS=2 ./net train --data shards --out r2 $random >/dev/null
for f in last.safetensors best.safetensors metrics.jsonl metrics.csv; do
    cmp r1/$f r3/$f || fail "$f depends on the threads"
done
cmp r1/metrics.jsonl r2/metrics.jsonl || fail "shards and metadata differ"

# ---- it learns
./net train --data data --out a --epochs 15 --batch 16 --lr 5e-3 --warmup-epochs 1 --mixup 0 --cutmix 0 \
    --smoothing 0 --crop-scale none --rand-augment none --erase 0 --flip 0 --drop-path 0 --seed 3 \
    --eval-every 30 --quiet >a.txt
grep -q 'mAP' a.txt || fail "no mean average precision: $(cat a.txt)"
grep -q '"val_map"' a/metrics.jsonl || fail "no val_map: $(tail -1 a/metrics.jsonl)"
grep -q '"val_top1"' a/metrics.jsonl && fail "top-1 of sets"
lower "$(grep -o '"loss": [0-9.e+-]*' a/metrics.jsonl | tail -1 | cut -d' ' -f2)" 0.2 ||
    fail "no learning: $(tail -1 a/metrics.jsonl)"

# ---- eval: the best checkpoint has the best mAP of the validations
./net eval --weights a/best.safetensors --data data --json >eval.json
lower 95 "$(value eval.json map)" || fail "mAP: $(cat eval.json)"
best=$(grep -o '"val_map": [0-9.]*' a/metrics.jsonl | cut -d' ' -f2 | sort -g | tail -1)
awk -v a="$best" -v b="$(value eval.json map)" 'BEGIN { d = a - b; exit !(d * d < 1e-6) }' ||
    fail "eval says $(value eval.json map), the best validation $best"
./net eval --weights a/best.safetensors --data data | grep -q 'mAP .*F1 .*loss' || fail "eval"
./net infer --weights a/best.safetensors data/test/1000.png --json >infer.json
grep -q '"name": "stripes' infer.json || fail "class names: $(cat infer.json)"

# ---- features: a probe for each class, sets as rows
./net probe --weights a/best.safetensors --data data --json >probe.json
lower 80 "$(value probe.json map)" || fail "probe: $(cat probe.json)"
./net embed --weights a/best.safetensors --data data --output e.npy --quiet
head -c 128 e.labels.npy | grep -qa "(40, 4" || fail "labels: $(head -c 128 e.labels.npy)"
./net train --data data --out part --label-fraction 0.2 --steps 2 --batch 8 --quiet >/dev/null 2>part.txt
must_fail "net probe" ./net knn --weights a/best.safetensors --data data

# ---- what does not take sets says so
must_fail "takes exactly one" ./softmax train --data data --out x
must_fail "--set recipes.train.loss=bce" ./softmax train --data shards --out x
must_fail "takes exactly one" ./softmax eval --weights seed:0 --data data
echo 4 >data/train/0007.cls
(cd data/train && ls | grep -v jsonl | tar cf ../../shards/a-train-0.tar -T -)
must_fail "head.classes=5" ./net train --data shards --out x
echo '1 1' >data/train/0007.cls
(cd data/train && ls | grep -v jsonl | tar cf ../../shards/a-train-0.tar -T -)
must_fail "0007.png has class 1 twice" ./net train --data shards --out x

# ---- names of classes lie in checkpoints one a line; data without labels says so
mkdir lines
cp data/test/1000.png data/test/1001.png lines
cat >lines/metadata.jsonl <<'END'
{"file_name": "1000.png", "labels": ["a\nb", "c"]}
{"file_name": "1001.png", "labels": ["d", "e"]}
END
must_fail "has a line end" ./net train --data lines --out x
echo '{"file_name": "1000.png", "text": "a"}' >lines/metadata.jsonl
must_fail "2 of 2 samples have no label" ./net train --data lines --out x
