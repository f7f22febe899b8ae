#!/bin/sh
# Lines, words and the most frequent words of a text: an op in plain POSIX shell, with sed, awk and sort.
# The whole contract is in the first four functions and the last two lines: inputs.json in; events.ndjson,
# error.json and outputs.json out. The working directory is the op's folder.
set -eu
export LC_ALL=C
trap 'exit 143' TERM # As process 1 of a container, a shell would ignore it.
app=$PWD
cd "$GYOZA_IO_DIR"

progress() { printf '{"type": "PROGRESS", "msg": %d}\n' "$1" >>events.ndjson; }
info() { printf '{"type": "INFO", "msg": "%s"}\n' "$1" >>events.ndjson; }
fail() {
    printf '{"error_message": "%s", "retryable": false}\n' "$1" >error.json
    echo "$1" >&2
    exit 1
}

input() { awk -v wanted="$1" -f "$app/input.awk" inputs.json; }

progress 0
text=$(input text)
top=$(input top)
case "$top" in '' | null) top=10 ;; *[!0-9]*) fail "top must be a whole number" ;; esac
[ -f "$text" ] && [ -r "$text" ] || fail "the text cannot be read"
iconv -f UTF-8 -t UTF-8 "$text" >/dev/null 2>&1 || fail "the text is not in UTF-8"
lines=$(awk 'END { print NR }' "$text")
info "$lines lines"
progress 25

# One word a line, in small letters: letters, and apostrophes inside a word. Whatever is not ASCII counts as a letter,
# but for the dashes and quotes of typography (U+2010 to U+203F in UTF-8: octal 342 200 220 to 342 200 277).
quote=$(printf '\342\200\231')
typography=$(printf '\342\200[\220-\277]')
sed "s/$quote/'/g; s/$typography/ /g" "$text" |
    tr 'A-Z' 'a-z' |
    tr -cs "a-z'\200-\377" '\n' |
    sed "s/^'*//; s/'*\$//; /^\$/d" >words.txt
words=$(awk 'END { print NR }' words.txt)
progress 50

# How often, most frequent first: "the<TAB>37".
mkdir -p outputs
sort words.txt | uniq -c | sort -k1,1nr -k2 | awk '{ print $2 "\t" $1 }' >outputs/frequencies.tsv
rm words.txt
distinct=$(awk 'END { print NR }' outputs/frequencies.tsv)
progress 75

list=$(awk -F '\t' -v top="$top" 'NR <= top { printf "%s{\"word\": \"%s\", \"count\": %d}", sep, $1, $2; sep = ", " }' \
    outputs/frequencies.tsv)

printf '{"lines": %d, "words": %d, "distinct": %d, "top": [%s], "frequencies": "outputs/frequencies.tsv"}\n' \
    "$lines" "$words" "$distinct" "$list" >outputs.json.part
mv outputs.json.part outputs.json
progress 100
