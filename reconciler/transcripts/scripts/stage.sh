# reconciler: take in files for a launch. Runs as `sh -c`, so that stdin is all ours; after common.sh.
# $1 nonce, $2 incoming directory, $3 bytes of the list, $4 bytes in all. Stdin is the list, which is a text of calls
# of `put_in`, and then what is new of each file, one behind the other.

LC_ALL=C
export LC_ALL
umask 077
trap 'rm -rf "$spool" "$spool.list"' 0
trap 'exit 1' 1 2 15
nonce=$1 incoming=$2 spool=$2/.spool
# put_in N PATH LENGTH DIGEST OFFSET NEW SHA256: the first LENGTH bytes of PATH, if they have DIGEST, and NEW bytes
# of what was sent.
put_in() {
  to=$incoming/$1
  if [ "$3" -gt 0 ]; then
    [ -f "$2" ] && [ ! -L "$2" ] && [ "$(head -c "$3" <"$2" | sha)" = "$4" ] || { told "$1" changed; return; }
    head -c "$3" <"$2" >"$to.new" || { told "$1" full; return; }
  else
    : >"$to.new" || { told "$1" full; return; }
  fi
  [ "$6" -eq 0 ] || tail -c "+$((list + $5 + 1))" <"$spool" | head -c "$6" >>"$to.new" || { told "$1" full; return; }
  [ $(($(wc -c <"$to.new"))) -eq $(($3 + $6)) ] || { told "$1" full; return; }
  [ "$(sha <"$to.new")" = "$7" ] || { told "$1" damaged; return; }
  sync "$to.new" 2>/dev/null || :
  mv -f "$to.new" "$to" && told "$1" ok || told "$1" full
}
told() {
  [ "$2" = ok ] || rm -f "$to.new"
  printf '%s\t%s\t%s\n' "$nonce" "$1" "$2"
}
# Whoever sends stops when we have ended.
full() {
  rm -rf "$spool" "$spool.list"
  printf '%s\tfull\n' "$nonce"
  exit 0
}
list=$3
printf '%s\tbegin\n' "$nonce"
{ mkdir -p "$incoming" && rm -rf "${incoming:?}"/* && : >"$spool"; } 2>/dev/null || full
head -c "$4" >"$spool" 2>/dev/null
[ $(($(wc -c <"$spool"))) -eq "$4" ] || full
head -c "$3" <"$spool" >"$spool.list" 2>/dev/null || full
# shellcheck disable=SC1091,SC1090
. "$spool.list"
rm -rf "$spool" "$spool.list"
printf '%s\tend\n' "$nonce"
