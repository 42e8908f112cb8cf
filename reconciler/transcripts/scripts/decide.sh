# reconciler: what a person has decided about the copies of a conversation. After common.sh and guard.sh.

# at_rest: no process of the session lives, and that is proven.
at_rest() {
  session "$NAME" "$EXPECT"
  process_state
  case $? in
  0) fail already-running "session $NAME runs (pid $p_pid): stop it first" ;;
  2) fail unknown "cannot tell whether pid $p_pid of session $NAME lives" ;;
  esac
}

# put_over N SHA256 PATH BEFORE: a staged file takes the place of PATH, which has to be what was decided about. What
# lay there is kept in our own directory. By way of a copy, so that its time is now: agents remove what looks old.
put_over() {
  staged=$dir/incoming/$1 kept=$dir/replaced/$OP
  [ -f "$staged" ] && [ "$(sha <"$staged")" = "$2" ] || fail sync-failed "what was staged for $3 is not what was sent"
  [ -f "$3" ] && [ ! -L "$3" ] || fail stale "$3 is not there any more, or no plain file"
  [ "$(sha <"$3")" = "$4" ] || fail stale "$3 has changed since it was shown"
  mkdir -p "$kept" && cp "$3" "$kept/$1" && printf '%s\n' "$3" >"$kept/$1.path" ||
    fail disk-full "cannot keep a copy of $3; nothing was changed"
  if ! { cp "$staged" "$3.reconciler$$" && mv -f "$3.reconciler$$" "$3"; }; then
    rm -f "$3.reconciler$$"
    fail disk-full "cannot write $3"
  fi 2>/dev/null
}

placed() {
  rm -rf "$dir/incoming"
  js "$dir/replaced/$OP"
  finish "{\"ok\":true,\"kept\":$J}"
}

# wipe PATH: a file of a conversation that is purged, and the folders that it leaves empty.
wipe() {
  [ ! -L "$1" ] || fail unsafe-name "$1 is a link: it was not deleted"
  [ ! -e "$1" ] || rm -f "$1" || fail failed "cannot delete $1"
  rmdir "${1%/*}" 2>/dev/null && w_up=${1%/*} && rmdir "${w_up%/*}" 2>/dev/null || :
}

wiped() {
  rm -rf "$dir" || fail failed "cannot delete $dir"
  finish '{"ok":true}'
}
