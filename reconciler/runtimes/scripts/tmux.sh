# reconciler: sessions of a tmux server of the fleet's own, by exact names; those that were adopted, where they are.

SOCKET=

tm() { PATH=$LOGIN_PATH TMUX='' bounded 10 tmux -S "${SOCKET:-$state/tmux}" "$@"; }

# pane: TARGET becomes the session's terminal, SOCKET its server where that is the user's own (ADOPTED is y then). Fails
# where an adopted one's pane is not that pane any more: its number may be another one's.
pane() {
  SOCKET= TARGET="=$NAME:" ADOPTED=
  [ -r "$dir/terminal" ] || return 0
  ADOPTED=y TARGET=
  IFS=$tab read -r t_pane t_pid t_start t_boot SOCKET <"$dir/terminal"
  alive "$t_pid" "$t_start" "$t_boot" && [ "$(tm display-message -p -t "$t_pane" '#{pane_pid}' 2>/dev/null)" = "$t_pid" ] &&
    TARGET=$t_pane
}

# typing: as pane, and what is typed there reaches the agent (p_pid): of an adopted one that is in the background, it
# would be the user's shell that runs it.
typing() { pane && { [ -z "$ADOPTED" ] || foreground "$p_pid"; }; }

foreground() {
  if [ -r /proc/self/stat ]; then
    { read -r s_line <"/proc/$1/stat"; } 2>/dev/null || return 1
    # shellcheck disable=SC2086
    set -- ${s_line##*) }
    [ "$3" = "$6" ]
  else
    # shellcheck disable=SC2046
    set -- $(ps -o pgid= -o tpgid= -p "$1" 2>/dev/null)
    [ -n "${1-}" ] && [ "$1" = "$2" ]
  fi
}

runtime_needs() {
  PATH=$LOGIN_PATH command -v tmux >/dev/null 2>&1 ||
    fail tmux-missing "tmux is not on the PATH of the login shell: $LOGIN_PATH"
  [ "${#state}" -le 95 ] || fail socket-path "$state/tmux is too long for a socket (about 100 bytes are)"
  tmux_room
}

# tmux_room: one more session has a place. A server that runs out of descriptors answers nobody any more, and each
# session costs more than the one before it.
tmux_room() {
  t_most=500 t_why='is full: it has 500 sessions'
  # shellcheck disable=SC3045
  t_files=$(ulimit -n 4096 2>/dev/null; ulimit -n)
  if number "$t_files" && [ "$((t_files / 2 - 50))" -lt "$t_most" ]; then
    t_most=$((t_files / 2 - 50)) t_why="may open only $t_files files"
  fi
  t_there=0
  if [ -S "$state/tmux" ]; then
    t_there=$(tm list-sessions -F '#{session_name}' 2>/dev/null | grep -c -v -x -F -e "$NAME" -e _ctl)
    number "$t_there" || t_there=0
  fi
  [ "$t_there" -lt "$t_most" ] || fail too-many-terminals "the tmux server of this fleet $t_why"
  if [ -r /proc/sys/kernel/pty/nr ]; then
    # Not by `read`: one byte at a time, the kernel gives the first digit and no more.
    t_there=$(cat /proc/sys/kernel/pty/nr) t_most=$(cat /proc/sys/kernel/pty/max)
    [ "$t_there" -lt "$t_most" ] || fail too-many-terminals "this host has $t_there of $t_most terminals in use"
  fi
}

# The pane's first process is a shell that waits: it takes TERM and INT, which are meant for the agent, but not the
# HUP of a terminal that goes away. So it ends then, and the kernel tells the agent; our wrapper, which takes all
# three, would keep that from it.
runtime_start() {
  tm kill-session -t "=$NAME" >/dev/null 2>&1
  tries=0
  until tmux_start; do
    # Where that was the last session, the server may be on its way out, and who comes then is sent away with it.
    tries=$((tries + 1))
    case $out in *'server exited'* | *'no server running'* | *'lost server'* | *'error connecting'*) ;; *) tries=9 ;; esac
    [ "$tries" -lt 9 ] || fail failed "tmux could not start the session: $out"
    nap
  done
}

tmux_start() {
  # shellcheck disable=SC2086,SC2016
  out=$(
    exec 4>&- 2>&1 </dev/null
    # shellcheck disable=SC3045
    ulimit -n 4096 2>/dev/null
    trap - HUP PIPE
    clean_env tmux-256color
    exec $SCOPE tmux -S "$state/tmux" -f "${TMUX_CONF:-/dev/null}" \
      new-session -d -s "$NAME" -x 200 -y 50 sh -c 'trap : TERM INT; sh "$0"; exit $?' "$dir/launch" \; \
      set-option -t "=$NAME:" remain-on-exit on \; \
      set-option -t "=$NAME:" history-limit 20000
  )
}

runtime_key() { typing && tm send-keys -t "$TARGET" "$1" >/dev/null 2>&1; }

# What stood on the screen is kept in the log; then the session ends. The user's own terminal stays.
runtime_end() {
  if [ -e "$dir/terminal" ]; then
    pane && tm capture-pane -p -S -2000 -t "$TARGET" >>"$dir/log" 2>/dev/null
    rm -f "$dir/terminal"
    SOCKET=
    return 0
  fi
  [ -S "$state/tmux" ] || return 0
  tm capture-pane -p -S -2000 -t "=$NAME:" >>"$dir/log" 2>/dev/null
  tm kill-session -t "=$NAME" >/dev/null 2>&1
}

runtime_load() {
  typing || fail no-terminal "the terminal of session $NAME is gone, or its agent is in the background there"
  tm load-buffer -b "reconciler-$NAME" "$dir/message" >/dev/null 2>&1 || fail failed "tmux did not take the message"
}

# Bracketed, so that newlines do not submit; Enter comes after a pause, or some TUIs take it as a newline.
runtime_send() {
  tm paste-buffer -d -p -b "reconciler-$NAME" -t "$TARGET" >/dev/null 2>&1 || fail failed "tmux did not paste"
  sleep 0.5 2>/dev/null || sleep 1
  tm send-keys -t "$TARGET" Enter >/dev/null 2>&1 || fail failed "tmux did not send Enter"
}

runtime_rename() {
  [ ! -e "$dir/terminal" ] || return 0
  tm has-session -t "=$NAME" >/dev/null 2>&1 || return 0
  tm rename-session -t "=$NAME" "$1" >/dev/null 2>&1 || fail failed "tmux did not rename the session"
}
