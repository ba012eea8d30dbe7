# The command line of a compiled model: every command, option errors, skipped files, exit statuses.
images=$SOURCE/tests/unit/data/images
archives=$SOURCE/tests/fuzz/corpus/image
"$CNXC" build $small --programs=infer -o net
"$CNXC" weights init $small w.safetensors --seed 3

rows() { head -c 128 "$1" | grep -aoE "'shape': \([0-9, ]*\)" | sed 's/,)/)/'; }

# Help, and what a wrong command line says.
for command in info infer features embed eval bench; do
    status_is 0 ./net $command --help
    for part in NAME SYNOPSIS DESCRIPTION OPTIONS 'EXIT STATUS' EXAMPLES "./net $command"; do
        [ "$part" = "./net $command" ] && part="net $command"
        says "$part"
    done
done
status_is 0 ./net --help
says "COMMANDS"
status_is 2 ./net
status_is 2 ./net infre;                                says "did you mean infer?" err.txt
status_is 2 ./net xyzzy;                                says "see net --help" err.txt
status_is 2 ./net infer --weigths w.safetensors x.jpg;  says "did you mean --weights?" err.txt
status_is 2 ./net infer --stage 2 x.jpg;                says "an option of features" err.txt
status_is 2 ./net infer --top 0 x.jpg;                  says "expected a whole number from 1 to 1000" err.txt
status_is 2 ./net infer --top 5x x.jpg;                 says "--top 5x" err.txt
status_is 2 ./net infer --weights;                      says "--weights needs a value" err.txt
status_is 2 ./net infer --json=yes x.jpg;               says "--json takes no value" err.txt
status_is 2 ./net infer -w x.jpg;                       says "two dashes" err.txt
status_is 2 ./net info x.jpg;                           says "unexpected operand x.jpg" err.txt
status_is 2 ./net infer;                                says "no input" err.txt
status_is 2 ./net infer "$images/one.png";              says "--weights FILE" err.txt
status_is 2 ./net infer --weights seed:0 --input x.npy; says "needs --output" err.txt
status_is 2 ./net infer --weights seed:0 --input x.npy --output y.npy a.jpg; says "exclude each other" err.txt
status_is 2 ./net infer --weights seed:0 --json --csv a.jpg; says "exclude each other" err.txt
status_is 2 ./net features --weights seed:0 --stage 7 --output y.npy "$images/one.png"
says "--stage 7: model" err.txt
status_is 2 ./net features --weights seed:0 --stage 1 "$images/one.png"; says "--output Y.npy" err.txt
status_is 2 ./net features --weights seed:0 --layout chwn --output y.npy "$images/one.png"
says "expected nchw or nhwc" err.txt
status_is 2 ./net bench --program prepare;              says "infer, features, train or pretrain" err.txt
status_is 1 ./net infer --weights seed:x "$images/one.png"; says "seed:x" err.txt
status_is 1 ./net infer --weights nothing.pt "$images/one.png"; says "nothing.pt" err.txt
if [ -e /dev/full ]; then
    status=0
    ./net info >/dev/full 2>err.txt || status=$?
    [ $status -eq 1 ] || fail "status $status when the disk is full"
fi

# info
status_is 0 ./net info
says "bytes per image"; says "stages.3.1.pwconv2"; says "7"
status_is 0 ./net info --json
says '"image_bytes"'; says '"height": 64'; says '"parameters"'

# infer: files, folders, archives; broken ones are reported and skipped.
status_is 0 ./net infer --weights w.safetensors --top 2 "$images/wide.png" "$images/cmyk.jpg"
[ "$(wc -l <out.txt)" -eq 2 ] || fail "expected two lines"
status_is 3 ./net infer --weights w.safetensors "$images" --csv --top 1
says "skipped $images/truncated.jpg: truncated" err.txt
says "skipped $images/crc.png: corrupt PNG" err.txt
says "13 of 52 inputs skipped" err.txt
[ "$(wc -l <out.txt)" -eq 40 ] || fail "39 pictures and a header expected, got $(wc -l <out.txt) lines"
cp out.txt one.csv
for batch in 1 5 100; do
    status_is 3 ./net infer --weights w.safetensors "$images" --csv --top 1 --batch $batch --threads 2
    cut -d, -f1-4 one.csv >a; cut -d, -f1-4 out.txt >b
    cmp a b || fail "the answers depend on the batch"
done
status_is 3 ./net infer --weights w.safetensors --json "$archives/pax.tar" absent.png
says '"error"'; says 'picture.png"'; says '"skipped": 2'
says "skipped absent.png: No such file or directory" err.txt
status_is 0 ./net infer --weights w.safetensors --limit 2 "$archives/gnu.tar"
[ "$(wc -l <out.txt)" -eq 2 ] || fail "--limit 2"
status_is 0 ./net infer --weights w.safetensors --output l.npy "$images/wide.png" "$images/one.jpg"
[ "$(rows l.npy)" = "'shape': (2, 7)" ] || fail "logits of pictures: $(rows l.npy)"

# Class names stored with the artifact or the weights are used; seven classes have none here.
says "class " out.txt

# features and embed: shapes in both layouts; names beside embeddings.
for s in 0:40,16,24 1:80,8,12 2:160,4,6 3:320,2,3; do
    status_is 0 ./net features --weights w.safetensors --stage=${s%%:*} --output f.npy "$images/wide.png" "$images/rgb.png"
    [ "$(rows f.npy | tr -d ' ')" = "'shape':(2,${s#*:})" ] || fail "stage ${s%%:*}: $(rows f.npy)"
done
status_is 0 ./net features --weights w.safetensors --stage 0 --layout nhwc --output g.npy "$images/wide.png"
[ "$(rows g.npy)" = "'shape': (1, 16, 24, 40)" ] || fail "nhwc: $(rows g.npy)"
status_is 0 ./net features --weights w.safetensors --output p.npy "$images/wide.png" "$images/rgb.png"
status_is 3 ./net embed --weights w.safetensors --output e.npy "$images/wide.png" "$images/gif.png" "$images/rgb.png"
[ "$(rows e.npy)" = "'shape': (2, 320)" ] || fail "embed: $(rows e.npy)"
[ "$(cat e.txt)" = "$images/wide.png
$images/rgb.png" ] || fail "names: $(cat e.txt)"
cmp p.npy e.npy || fail "embed is not what features --stage=pooled gives"
status_is 1 ./net embed --weights w.safetensors --output /nonexistent/e.npy "$images/wide.png"

# Tensors: the stage maps just written have a wrong shape, and the message says both.
status_is 1 ./net infer --weights w.safetensors --input f.npy --output y.npy
says "[2,320,2,3]" err.txt; says "[N,3,64,96]" err.txt
status_is 1 ./net infer --weights w.safetensors --input "$images/one.png" --output y.npy
status_is 1 ./net infer --weights w.safetensors --input absent.npy --output y.npy; says "absent.npy" err.txt

# eval: class folders by number, by sorted order, in val; tar too.
for i in 0 1 2 3 4 5 6; do mkdir -p set/val/$i sorted/c$i; cp "$images/wide.png" set/val/$i/a.png; cp "$images/rgb.png" sorted/c$i/; done
mkdir -p set/train/0; cp "$images/wide.png" set/train/0/
status_is 0 ./net eval --weights w.safetensors --json set
says '"images": 7'; says '"split": "val"'; says '"top1": 14.28571'; says '"top5": 71.4285'
status_is 0 ./net eval --weights w.safetensors --split train set; says "images 1 "
status_is 0 ./net eval --weights w.safetensors --data set; says "images 7 "
status_is 2 ./net eval --weights w.safetensors set sorted; says "got 2" err.txt
status_is 0 ./net eval --weights w.safetensors sorted; says "top-1 14.286 %   top-5 71.429 %"
tar cf sorted.tar sorted
status_is 0 ./net eval --weights w.safetensors sorted.tar; says "top-1 14.286 %   top-5 71.429 %"
echo broken >sorted/c1/broken.jpg
status_is 3 ./net eval --weights w.safetensors --json sorted; says '"skipped": 1'
rm -r sorted/c6
status_is 1 ./net eval --weights w.safetensors sorted; says "6 class folders for 7 classes" err.txt
status_is 1 ./net eval --weights w.safetensors --split test set; says "no class folders in test" err.txt

# embed on a data set: rows, names and labels of one split.
status_is 0 ./net embed --weights w.safetensors --data set --output d.npy --json
says '"rows": 7'; says '"labels": "d.labels.npy"'
[ "$(rows d.npy)" = "'shape': (7, 320)" ] || fail "embed --data: $(rows d.npy)"
[ "$(rows d.labels.npy)" = "'shape': (7)" ] || fail "labels: $(rows d.labels.npy)"
[ "$(sed -n 3p d.txt)" = val/2/a.png ] || fail "names: $(cat d.txt)"
status_is 0 ./net embed --weights w.safetensors --data set --split train --output d.npy --labels l.npy
[ "$(rows l.npy)" = "'shape': (1)" ] || fail "labels of train: $(rows l.npy)"
status_is 2 ./net embed --weights w.safetensors --data set --output d.npy "$images/one.png"; says "exclude each other" err.txt
status_is 2 ./net embed --weights w.safetensors --output d.npy --split val "$images/one.png"; says "are for --data" err.txt
status_is 2 ./net embed --weights w.safetensors --data set --split x --output d.npy; says "expected train, val or test" err.txt
status_is 1 ./net embed --weights w.safetensors --data absent --output d.npy; says "absent" err.txt

# bench: one object with exactly these keys; no weights needed.
status_is 0 ./net bench --batch 2 --threads 1 --runs 3 --json
[ "$(grep -o '"[a-z_]*":' out.txt | tr -d '":\n ' )" = \
    programbatchthreadsmin_msmedian_msgflopgflopspeak_gflopspercent_of_peakpeak_rss_mbplanned_mbrun_ms ] || fail "keys: $(cat out.txt)"
says '"batch": 2'; says '"threads": 1'
status_is 0 ./net bench --program features --runs 2 --profile --json
says '"kernels"'; says '"percent"'; says '"stages.2.0.dwconv"'
status_is 0 ./net bench --runs 2 --profile; says "% peak"

# A model of 12 channels takes tensors, not pictures; one without a head gives features.
"$CNXC" build $small --programs=infer -o twelve --set input.channels=12
status_is 1 ./twelve infer --weights seed:0 "$images/one.png"; says "--input X.npy" err.txt
"$CNXC" build $small --programs=infer -o headless --set head=none
status_is 1 ./headless infer --weights seed:0 "$images/one.png"; says "no head" err.txt
status_is 0 ./headless embed --weights seed:0 --output h.npy "$images/one.png"

# Grey and RGBA models read the same pictures.
for channels in 1 4; do
    "$CNXC" build $small --programs=infer -o n$channels --set input.channels=$channels
    status_is 3 ./n$channels infer --weights seed:0 "$images"
    says "13 of 52 inputs skipped" err.txt
done
