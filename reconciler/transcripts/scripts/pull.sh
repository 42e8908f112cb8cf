# reconciler: what is new in files of conversations. After common.sh and the setting NONCE.
# Prints `NONCE TAB begin`, for each file a line `NONCE TAB n TAB word TAB base TAB size TAB mtime TAB digest`; behind
# `ahead` and `other` its bytes from base to size and a line `NONCE TAB n TAB same|changed`; at last `NONCE TAB end`.
# What `grown` prints instead stands there.

LC_ALL=C
export LC_ALL
stat_format='%s %Y' stat_flag=-c
stat -c %s / >/dev/null 2>&1 || stat_format='%z %m' stat_flag=-f

now=$(date +%s)
newline='
'

say() { printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$NONCE" "$@"; }

# one N PATH LIMIT LENGTH DIGEST [LENGTH DIGEST]: the first LENGTH whose DIGEST is right says from where on bytes are
# wanted: `ahead` for the first pair, `other` for the second, and from the beginning where none is right. Where the
# file is shorter than the first LENGTH it is `short`, and its digest is told. LENGTH `-`: it is no such pair.
one() {
  n=$1 f=$2 limit=$3
  shift 3
  trouble=
  if [ -L "$f" ]; then
    trouble=odd
  elif [ ! -e "$f" ]; then
    trouble=missing
  elif [ ! -f "$f" ]; then
    trouble=odd
  elif [ ! -r "$f" ]; then
    trouble=denied
  fi
  if [ -n "$trouble" ]; then
    say "$n" $trouble 0 0 0 -
    return
  fi
  inode=$(ls -di "$f")
  s=$(stat "$stat_flag" "$stat_format" "$f" 2>/dev/null) || s="$(($(wc -c <"$f"))) 0"
  size=${s%% *} mtime=${s##* }
  # What changed in this very second may change once more and look the same.
  [ "$mtime" -lt $((now - 1)) ] || mtime=-
  if [ "$1" != - ] && [ "$size" -lt "$1" ]; then
    say "$n" short 0 "$size" "$mtime" "$(head -c "$size" <"$f" | sha)"
    return
  fi
  word=ahead base=
  while [ $# -ge 2 ] && [ -z "$base" ]; do
    if begins "$1" "$2"; then base=$1; else word=other; fi
    shift 2
  done
  [ -n "$base" ] || base=0
  if [ $((size - base)) -gt "$limit" ]; then
    say "$n" large "$base" "$size" "$mtime" -
    return
  fi
  say "$n" $word "$base" "$size" "$mtime" "$(news | sha)"
  news
  [ "$inode" = "$(ls -di "$f")" ] && word=same || word=changed
  printf '%s\t%s\t%s\n' "$NONCE" "$n" $word
}

# news: the bytes after `base`, up to the size that was announced.
news() {
  if [ "$base" -eq 0 ]; then
    head -c "$size" <"$f"
  elif [ "$size" -gt "$base" ]; then
    tail -c "+$((base + 1))" <"$f" | head -c $((size - base))
  fi
}

# begins LENGTH DIGEST: whether the file is at least as long, and its first bytes have that digest.
begins() {
  [ "$1" != - ] && [ "$1" -le "$size" ] || return 1
  [ "$1" -eq 0 ] || [ "$(head -c "$1" <"$f" | sha)" = "$2" ]
}

# grown N "BASE..." LIMIT PATH...: files of which those many bytes are known, from N on. For each a line as above with
# the word `grown`, and its bytes from base to size; then for each `NONCE TAB sum TAB` and the digest of the whole file,
# so that whoever knows its beginning can prove that all of it is one file; then `NONCE TAB sums`. Nothing is compared
# here, and few programs run. What has not simply grown is `again`: it is to be asked for by `one`.
grown() {
  n=$1 bases=$2 limit=$3 told=
  shift 3
  for f; do
    # Nobody waits for a FIFO.
    { [ -f "$f" ] && [ ! -L "$f" ] && [ -r "$f" ]; } || told=odd
  done
  if [ -n "$told" ]; then
    tails "$@"
  else
    # The clock is read before any file is; the digests, which take longest, run beside all else.
    # shellcheck disable=SC2030
    { date +%s && digests "$@" 2>/dev/null; } | {
      told=$(stat "$stat_flag" "$stat_format" "$@" 2>/dev/null)
      read -r now && tails "$@"
      while read -r sum rest; do printf '%s\tsum\t%s\n' "$NONCE" "$sum"; done
    }
  fi
  printf '%s\tsums\n' "$NONCE"
}

# tails PATH...: by `bases` and by what `stat` has `told`, a line for each.
# shellcheck disable=SC2031
tails() {
  told="$told$newline"
  for f; do
    base=${bases%% *} bases=${bases#* }
    s=${told%%"$newline"*} told=${told#*"$newline"}
    size=${s%% *} mtime=${s##* }
    if number "$size" && number "$mtime" && [ "$size" -ge "$base" ] && [ $((size - base)) -le "$limit" ]; then
      [ "$mtime" -lt $((now - 1)) ] || mtime=-
      say "$n" grown "$base" "$size" "$mtime" -
      [ "$size" -eq "$base" ] || tail -c $((size - base)) <"$f"
    else
      say "$n" again 0 0 0 -
    fi
    n=$((n + 1))
  done
}

# digests PATH...: a line for each that begins with its SHA-256. Never comes back.
digests() {
  if command -v sha256sum >/dev/null 2>&1; then
    exec sha256sum "$@"
  elif command -v shasum >/dev/null 2>&1; then
    exec shasum -a 256 "$@"
  else
    exec openssl dgst -sha256 -r "$@"
  fi
}
