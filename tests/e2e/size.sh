# Programs of any size stay below 1 MB: code, tables and read-only data of the object.
for model in atto tiny base huge; do
    "$CNXC" build convnextv2_$model -o $model.o --emit=obj --programs=infer --target=x86-64-v4
    bytes=$(size -d $model.o | awk 'NR == 2 {print $4}')
    echo "$model: $bytes bytes"
    [ "$bytes" -lt 1000000 ] || fail "$model is $bytes bytes"
done
