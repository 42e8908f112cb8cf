# reconciler: take a process that somebody else started under management, as it runs. Comes after strays.sh.

# within PID ANCESTOR: whether it is that process or descends from it.
within() {
  w_pid=$1
  w_n=0
  while number "$w_pid" && [ "$w_pid" -gt 1 ] && [ "$w_n" -lt 60 ]; do
    [ "$w_pid" != "$2" ] || return 0
    w_pid=$(ps -o ppid= -p "$w_pid" 2>/dev/null | tr -d ' ')
    w_n=$((w_n + 1))
  done
  return 1
}

# terminal_of PID: TERMINAL becomes the line by which its pane (SOCKET, PANE) is known again: a pane's number comes again
# in another server on the same socket, its process does not.
terminal_of() {
  TERMINAL=
  [ -n "$PANE" ] || return 0
  a_pane=$(PATH=$LOGIN_PATH TMUX='' bounded 10 tmux -S "$SOCKET" display-message -p -t "$PANE" '#{pane_pid}' 2>/dev/null)
  number "$a_pane" && within "$1" "$a_pane" && started "$a_pane" ||
    fail stale "pid $1 is not in the pane $PANE of the tmux server $SOCKET any more"
  TERMINAL=$PANE$tab$a_pane$tab$STARTED$tab$BOOT$tab$SOCKET
}

# refuse_owned PID: it is nobody's process, of no fleet of this user.
refuse_owned() {
  for f in "${state%/*}"/*/sessions/*/process.*; do
    { read -r q_pid q_start q_boot q_rest <"$f"; } 2>/dev/null || continue
    [ "$q_pid" = "$1" ] && [ ! -L "${f%/*}" ] && alive "$q_pid" "$q_start" "$q_boot" &&
      fail already-running "pid $1 is that of ${f#"${state%/*}/"} already"
  done
}

# op_adopt: NAME EXPECT INCARNATION RECORD CONVERSATION PID START SOCKET PANE VARIABLES, and `session_probes`.
# The note of the process goes before the record: whoever found a record without a process would resume its
# conversation in a second one.
op_adopt() {
  own_place
  session "$NAME" "$EXPECT"
  login_path
  process_state
  case $? in
  0) fail already-running "pid $p_pid of session $NAME lives" ;;
  2) fail unknown "cannot tell whether pid $p_pid of session $NAME lives" ;;
  esac
  own "$PID" && started "$PID" && [ "$ZOMBIE" = n ] && [ "$STARTED" = "$START" ] && [ -n "$BOOT" ] ||
    fail stale "pid $PID is not the process that it was a moment ago"
  # Signals are for its process group, unless that is somebody else's, such as the shell's that started it.
  a_group=$GROUP
  [ "$a_group" = "$PID" ] || a_group=alone
  refuse_owned "$PID"
  terminal_of "$PID"
  work_of "$PID"
  put "$dir/incarnation" "$INCARNATION
"
  rm -f "$dir"/exit.* "$dir"/process.* "$dir"/withdrawn.* "$dir/env" "$dir/stdin" "$dir/terminal" "$dir/launch"
  for f in events log; do [ ! -e "$dir/$f" ] || mv -f "$dir/$f" "$dir/$f.old"; done
  # shellcheck disable=SC2086,SC2034
  a_probes=$(taken_from "$PID" $VARIABLES; home=$HOME workdir=$CWD; session_probes)
  put "$dir/probe" "$a_probes
"
  put "$dir/conversation" "$CONVERSATION
"
  [ -z "$TERMINAL" ] || put "$dir/terminal" "$TERMINAL
"
  put "$dir/process.$INCARNATION" "$PID $START $BOOT $INCARNATION $a_group
"
  for f in "$state"/forgotten/*/process.*; do
    # It was let go of once, and is that no more.
    { read -r q_pid q_start q_rest <"$f"; } 2>/dev/null && [ "$q_pid $q_start" = "$PID $START" ] &&
      mv -f "$f" "${f%/*}/adopted.${f##*.}"
  done
  put "$dir/record.json" "$RECORD
"
  finish "{\"ok\":true,\"group\":\"$a_group\"}"
}
