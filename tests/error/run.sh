#!/usr/bin/env bash
# run.sh CNXC FILE: the command must exit with 1 and report exactly the errors the file announces.
#
#   %1 = gelu %9 : f32[B,4]     ; error: unknown value %9
#
# "# error: TEXT" in YAML, "; error: TEXT" in IR, on the offending line, several on one line allowed;
# TEXT is a part of the message. "error@LINE: TEXT" names another line, absolute or as +1, -2.
# "hint: TEXT" wants a hint with that text. "ARGS: ..." adds arguments to the command.
set -u
cnxc=$1 file=$2
case $file in
  *.yaml) verb=check ;;
  *) verb=opt ;;
esac
args=$(sed -n 's/^[;#] *ARGS: *//p' "$file")
# shellcheck disable=SC2086 # on purpose: ARGS are words
output=$("$cnxc" $verb "$file" $args 2>&1 > /dev/null)
status=$?
printf '%s\n' "$output"
if [ $status -ne 1 ]; then
  echo "FAIL: exit status $status, wanted 1"
  exit 1
fi

# Joins what the file announces with what was printed, both as "line<TAB>text".
awk -v file="$file" '
  function trim(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }
  function announce(line, text) { want_line[++wants] = line; want_text[wants] = text }
  FNR == 1 { part++ }
  part == 1 {
    n = split($0, segment, /[;#] (error|hint)/)
    rest = $0
    for (i = 2; i <= n; i++) {
      at = match(rest, /[;#] (error|hint)/)
      kind = substr(rest, at + 2, RLENGTH - 2)
      rest = substr(rest, at + RLENGTH)
      text = segment[i]
      line = FNR
      if (kind == "error" && match(text, /^@[-+]?[0-9]+:/)) {
        number = substr(text, 2, RLENGTH - 2)
        line = number ~ /^[-+]/ ? FNR + number : number + 0
        text = substr(text, RLENGTH)
      }
      if (substr(text, 1, 1) != ":") continue
      text = trim(substr(text, 2))
      if (kind == "error") announce(line, text)
      else hint[++hints] = text
    }
    next
  }
  index($0, ": error: ") && index($0, file ":") == 1 {
    rest = substr($0, length(file) + 2)
    line = rest + 0
    text = substr(rest, index(rest, ": error: ") + 9)
    found = 0
    for (i = 1; i <= wants && !found; i++)
      if (!done[i] && want_line[i] == line && index(text, want_text[i])) found = done[i] = 1
    if (!found) { print "FAIL: unexpected error on line " line ": " text; bad = 1 }
    next
  }
  index($0, ": error: ") && $0 !~ /^ / { print "FAIL: unexpected error: " $0; bad = 1 }
  index($0, "hint: ") { said[++saids] = $0 }
  END {
    if (!wants) { print "FAIL: the file announces no error"; bad = 1 }
    for (i = 1; i <= wants; i++)
      if (!done[i]) {
        print "FAIL: missing on line " want_line[i] ": " want_text[i]
        bad = 1
      }
    for (i = 1; i <= hints; i++) {
      found = 0
      for (j = 1; j <= saids; j++) if (index(said[j], hint[i])) found = 1
      if (!found) { print "FAIL: missing hint: " hint[i]; bad = 1 }
    }
    exit bad
  }' "$file" <(printf '%s\n' "$output")
