# Which programs a spec gives, and what a user can get wrong about them.
tiny="$SOURCE/models/convnextv2_fashion.yaml"

# emit finds the model of a program; each has updates and parameters of its own.
for program in train pretrain reconstruct update update.ema; do
    "$CNXC" emit $tiny --program $program >$program.ir
    [ "$(grep -c '^program ' $program.ir)" = 1 ] || fail "not one program in $program.ir"
    grep -q "^program $program {" $program.ir || fail "no program $program"
done
grep -q '"mask_token"' pretrain.ir || fail "no mask token"
"$CNXC" emit $tiny --programs=pretrain --program update >update.ir
grep -q '"grad.mask_token"' update.ir || fail "the update of pretrain lacks the mask token"
"$CNXC" emit $tiny --programs=pretrain --stage=fused >packed.ir
"$CNXC" emit $tiny --programs=pretrain --stage=fused --sparse=dense >dense.ir
grep -q dwconv2d_packed packed.ir || fail "the encoder is not packed"
grep -q dwconv2d_packed dense.ir && fail "the dense encoder is packed"

# keep is int(49 * 0.4) = 19 cells; a ratio that hides them all is refused where it is asked for.
grep -q 'mask .*count=19' pretrain.ir || fail "not 19 visible cells"
must_fail "mask_ratio 0.99 of 49 mask units leaves none visible" \
    "$CNXC" emit $tiny --set fcmae.mask_ratio=0.99 --program pretrain

must_fail "--sparse is 'dens'; it must be packed or dense" "$CNXC" build $tiny -o net --sparse=dens
must_fail "--sparse=dense builds the masked encoder on whole maps" \
    "$CNXC" emit $tiny --programs=pretrain --stage=fused --set grn.aggregate=std
# What nobody asked for by name does not stop a build.
"$CNXC" build $tiny -O0 -o net --set grn.aggregate=std 2>note.txt
grep -q 'note: program pretrain is left out: its encoder cannot be packed' note.txt || fail "no note"
must_fail "--sparse=dense" "$CNXC" build $tiny -o net --programs=pretrain --set grn.aggregate=std
must_fail "programs train and pretrain are not for libraries" \
    "$CNXC" build $tiny -o libnet.so --emit=shared --programs=infer,train
must_fail "program train needs a head with classes" \
    "$CNXC" build $tiny -o net --programs=train --set head=none
must_fail "program pretrain needs an 'fcmae' section" \
    "$CNXC" build $tiny -o net --programs=pretrain --set fcmae=none
must_fail "the spec does not support program pretrain" \
    "$CNXC" emit $tiny --set fcmae=none --program pretrain
must_fail "divisible by 4 (total stride 4, mask unit 1), not 30" \
    "$CNXC" emit $tiny --set input.height=30 --program pretrain
must_fail "no program 'trian' at this stage" "$CNXC" emit $tiny --program trian
must_fail "recipe 'finetune' has loss cross_entropy but recipe 'train' bce" \
    "$CNXC" check $tiny --set recipes.train.loss=bce

# What is built runs, and a library holds inference alone.
"$CNXC" build $tiny -O0 -o net
./net info | grep -q "pretrain" || fail "info knows no pretrain"
"$CNXC" build $tiny -O0 -o none --programs=infer
must_fail "was built without the program pretrain" ./none pretrain --data . --out run
"$CNXC" build $tiny -O0 -o libnet.a --emit=static
nm libnet.a | grep -qi "train" && fail "a library holds code of training"
"$CNXC" build $tiny -O0 -o net.o --emit=obj --programs=infer,train,pretrain
