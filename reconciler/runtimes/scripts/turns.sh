# reconciler: headless turns as detached jobs, each in a directory of its own: sessions/OWNER/turns/ID. Sent after
# common.sh, guard.sh and process.sh. A turn is begun once, however often it is asked for, and goes on by itself.
# Settings of all: FLEET OP NONCE, CHAT (its name), ID (what the ids of its turns begin with), HOLDER, TTL.

LOGIN_PATH=$PATH

# chat_guard: the chat's lease on this host is ours for TTL seconds more. It is none on the host: controllers go on.
chat_guard() {
  mkdir -p "$state/sessions" "$state/locks" "$state/chats" 2>/dev/null && [ -w "$state/chats" ] ||
    fail disk-full "cannot write below $state: is the disk full, or not writable?"
  introduce
  take "$state/locks/chat-$CHAT" 10
  now=$(date +%s)
  l_until=0 l_holder=
  [ -r "$state/chats/$CHAT" ] && read -r l_until l_holder <"$state/chats/$CHAT"
  number "$l_until" || l_until=0
  # No lease lasts so long: the clock was set back.
  [ "$l_until" -le "$((now + 600))" ] || l_until=0
  if [ -n "$l_holder" ] && [ "$l_holder" != "$HOLDER" ] && [ "$l_until" -gt "$now" ]; then
    fail lease-held "group_chat.$CHAT is run by $l_holder, for another $((l_until - now)) s at least"
  fi
  put "$state/chats/$CHAT" "$((now + TTL)) $HOLDER
"
}

# start_detached as for sessions, but the answer and what is said beside it are kept apart.
start_detached() {
  exec </dev/null >"$dir/out" 2>"$dir/err" 4>&-
  trap - HUP PIPE
  clean_env dumb
  # shellcheck disable=SC2086
  exec $SCOPE "$@" sh "$dir/launch"
}

# op_turn: OWNER TURN LAUNCH EXPORTS END INCARNATION WAIT: begin a turn, unless it was begun.
op_turn() {
  chat_guard
  dir=$state/sessions/$OWNER/turns/$TURN
  if [ -e "$dir/launch" ] || [ -e "$state/sessions/$OWNER/turns/done/$TURN" ]; then
    release
    answer '{"ok":true,"again":true}'
    exit 0
  fi
  mkdir -p "$dir" 2>/dev/null || fail disk-full "cannot write below $state: is the disk full?"
  put "$dir/incarnation" "1
"
  put "$dir/starter" "$WHO
"
  mkfifo -m 600 "$dir/env" 2>/dev/null || [ -p "$dir/env" ] || fail disk-full "cannot make a FIFO in $dir"
  put "$dir/launch" "$LAUNCH"
  drop "$state/locks/chat-$CHAT"
  hand_over
  # What has not come up by now must not come up later: see op_launch.
  [ -e "$dir/process.1" ] || [ -e "$dir/exit.1" ] || put "$dir/withdrawn.1" ''
  release
  answer '{"ok":true}'
  exit 0
}

# turn_state: STATE becomes running, ended or lost, for the turn in $dir.
turn_state() {
  STATE=ended
  [ ! -e "$dir/exit.1" ] || return 0
  STATE=running
  if [ -e "$dir/process.1" ]; then
    process_state
    [ $? -eq 1 ] || return 0
    # Its wrapper notes how it ended within milliseconds.
    parent_state
    [ $? -eq 1 ] || return 0
  else
    { read -r t_pid t_start t_boot <"$dir/starter"; } 2>/dev/null || t_pid=
    alive "$t_pid" "$t_start" "$t_boot"
    case $? in 0 | 2) return 0 ;; esac
    [ -e "$dir/withdrawn.1" ] || put "$dir/withdrawn.1" ''
    [ ! -e "$dir/process.1" ] || return 0
  fi
  STATE=lost
  [ ! -e "$dir/exit.1" ] || STATE=ended
}

size_of() { t_size=$(($(wc -c <"$1" 2>/dev/null))) 2>/dev/null || t_size=0; }

# turn_line: LINE becomes what is to be said of the turn in $dir. Short answers come along, as long as there is room.
turn_line() {
  t_line=null t_out= t_err=
  [ "$STATE" != ended ] || IFS= read -r t_line <"$dir/exit.1" || t_line=null
  size_of "$dir/out"
  t_all=$t_size
  if [ "$STATE" != running ] && [ "$t_size" -le 24000 ] && [ "$room" -ge "$t_size" ]; then
    room=$((room - t_size - 2000))
    t_out=$(base64 <"$dir/out" 2>/dev/null | tr -d '\n')
    t_err=$(tail -c 2000 "$dir/err" 2>/dev/null | base64 | tr -d '\n')
  fi
  begun=false
  [ ! -e "$dir/process.1" ] || begun=true
  t_owner=${dir%/turns/*}
  LINE="{\"id\":\"${dir##*/}\",\"owner\":\"${t_owner##*/}\",\"state\":\"$STATE\",\"begun\":$begun,\"exit\":$t_line,\"size\":$t_all,\"out\":\"$t_out\",\"err\":\"$t_err\"}"
}

# op_turns: SECONDS: what became of the chat's turns on this host; as soon as one is over, or after so many seconds.
op_turns() {
  chat_guard
  release
  waited=0
  while :; do
    found=n
    for dir in "$state"/sessions/*/turns/"$ID".*; do
      [ -e "$dir/launch" ] || continue
      if [ -e "$dir/exit.1" ]; then found=y; break; fi
      # Proof of death forks: not at every turn of this loop.
      [ "$((waited % 20))" -ne 0 ] || { turn_state; [ "$STATE" = running ] || { found=y; break; }; }
    done
    [ $found = n ] && [ "$waited" -lt "$((SECONDS_LEFT * 10))" ] || break
    if [ "$waited" -lt 20 ]; then sleep 0.05 2>/dev/null || sleep 1; else nap; fi
    waited=$((waited + 1))
  done
  all= room=500000
  for dir in "$state"/sessions/*/turns/"$ID".*; do
    [ -e "$dir/launch" ] || continue
    turn_state
    turn_line
    all=$all${all:+,}$LINE
  done
  js "$state"
  answer "{\"ok\":true,\"state\":$J,\"turns\":[$all]}"
  exit 0
}

# op_turn_end: OWNER TURN: end the turn, and see to it that it does not come up any more.
op_turn_end() {
  chat_guard
  dir=$state/sessions/$OWNER/turns/$TURN
  [ -d "$dir" ] || mkdir -p "$dir" 2>/dev/null || fail disk-full "cannot write below $state: is the disk full?"
  [ -e "$dir/process.1" ] || put "$dir/withdrawn.1" ''
  if [ -e "$dir/process.1" ]; then
    KEYS= SIGNAL=TERM
    process_state
    case $? in 0) stop_agent ;; esac
  elif [ ! -e "$dir/launch" ]; then
    put "$dir/launch" '' # a late request to begin it finds that it was begun
  fi
  release
  answer '{"ok":true}'
  exit 0
}

# op_turns_done: TURNS (OWNER/ID, a space between two): their outcome stands in the log. The last twenty are kept.
op_turns_done() {
  chat_guard
  for t in $TURNS; do
    t_home=$state/sessions/${t%%/*}/turns
    mkdir -p "$t_home/done" 2>/dev/null
    [ ! -d "$t_home/${t#*/}" ] || mv "$t_home/${t#*/}" "$t_home/done/" 2>/dev/null || :
    t_n=0
    for f in "$t_home/done/$ID".*; do t_n=$((t_n + 1)); done
    for f in "$t_home/done/$ID".*; do
      [ "$t_n" -gt 20 ] || break
      rm -rf "$f"
      t_n=$((t_n - 1))
    done
  done
  release
  answer '{"ok":true}'
  exit 0
}
