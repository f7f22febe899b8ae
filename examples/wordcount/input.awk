# Prints the value of the key `wanted` at the top of a JSON object: a text without its escapes, a number as it is written,
# nothing where the key is missing. Reads well-formed JSON, which a worker writes. Bytes, so run it with LC_ALL=C.

# A text, from behind its opening quote to behind its closing one.
function text(    out, c) {
    while ((c = substr(json, at++, 1)) != "\"" && c != "")
        out = out (c == "\\" ? escaped(substr(json, at++, 1)) : c)
    return out
}

function escaped(c,    n) {
    if (c != "u") return c == "n" ? "\n" : c == "t" ? "\t" : c
    n = hex(4)
    if (n < 55296 || n >= 56320) return utf8(n)
    at += 2                                    # the \u of a character's second half
    return utf8(65536 + (n - 55296) * 1024 + hex(4) - 56320)
}

function hex(digits,    n) {
    while (digits-- > 0) n = n * 16 + index("0123456789abcdef", tolower(substr(json, at++, 1))) - 1
    return n
}

function utf8(n) {
    if (n < 128) return sprintf("%c", n)
    if (n < 2048) return sprintf("%c%c", 192 + int(n / 64), 128 + n % 64)
    if (n < 65536) return sprintf("%c%c%c", 224 + int(n / 4096), 128 + int(n / 64) % 64, 128 + n % 64)
    return sprintf("%c%c%c%c", 240 + int(n / 262144), 128 + int(n / 4096) % 64, 128 + int(n / 64) % 64, 128 + n % 64)
}

{ json = json $0 " " }

END {
    at = 1
    while ((c = substr(json, at++, 1)) != "") {
        found = after_colon && depth == 1 && key == wanted
        if (c == "\"") {
            last = text()
            if (found) { print last; exit }
        } else if (found && match(substr(json, at - 1), /^[-+.0-9a-zA-Z]+/)) {
            print substr(json, at - 1, RLENGTH); exit
        } else if (c == ":") { key = last; after_colon = 1
        } else if (c == ",") { after_colon = 0
        } else if (c == "{" || c == "[") { depth++
        } else if (c == "}" || c == "]") depth--
    }
}
