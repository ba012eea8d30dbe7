# cnxc targets: every row of the table with what it gives, and the one that --target=native takes.
"$CNXC" targets >targets.txt
rows=$(sed -n 's/^TARGET("\([^"]*\)".*/\1/p' "$SOURCE/ir/targets.def")
[ "$(sed '1d; /^$/,$d' targets.txt | cut -c3- | awk '{print $1}')" = "$rows" ] || fail "$(cat targets.txt)"
# gives ROW VECTOR FMA UNITS
gives() {
    line=$(cut -c3- targets.txt | grep "^$1 ")
    set -- "$line" "$@"
    [ "$(echo "$1" | awk '{print $2}')" = "$3" ] || fail "$2 has no $3: $1"
    [ "$(echo "$1" | awk '{print $4}')" = "$4" ] || fail "$2: fma is not $4: $1"
    case $1 in *" $5  "*) ;; *) fail "$2 does not give $5: $1" ;; esac
}
gives x86-64 scalar no pmaddwd
gives x86-64-v3 256 yes 'fp16 pmaddwd'
gives znver4 512 yes 'fp16 vdpbf16ps vpdpbusd'
gives sapphirerapids 512 yes 'fp16 vdpbf16ps vpdpbusd amx'
gives armv8.2-a 128 yes 'fp16 sdot'
gives aarch64-sve256 256+ yes 'fp16 bfdot usdot'
gives riscv64-v 256 yes -

native=$(sed -n 's/^\* \([^ ]*\) .*/\1/p' targets.txt | head -1)
"$CNXC" build $small --programs=infer -o net --target=native
./net info | grep -q "^target  *$native " || fail "native is $native: $(./net info | grep '^target')"
status_is 2 "$CNXC" targets x86-64
