# The wrapper of one launch: it finds the environment, starts the agent, stays, and notes how the agent ended.
# It holds no secret: those come through a FIFO. Set above: dir incarnation shell workdir command end fleet name

# The agent's own process begins here: it notes its pid, start time and boot id, then becomes the agent.
if [ "${1-}" = become ]; then
  started $$
  p=$dir/process.$incarnation
  printf '%s %s %s\n' $$ "$STARTED" "$2" >"$p.tmp" && mv -f "$p.tmp" "$p" || exit 75 # what nobody knows of would be started again
  # Noted first, then checked: see op_launch in guard.sh.
  read -r now_at <"$dir/incarnation"
  [ "$now_at" = "$incarnation" ] && [ ! -e "$dir/withdrawn.$incarnation" ] || exit 75
  shift 2
  exec "$@"
fi

# ours: the launch script in our place is ours. Its settings come first; whoever waits for our end waits for no fork.
ours() {
  while IFS= read -r o_line; do
    case $o_line in *"$end"*) return 0 ;; esac
  done <"$dir/launch"
  return 1
}

# over CODE ERROR DETAIL: how it ended, for the look. Not where this launch was let go of meanwhile, and another session
# has its name and place: `end` is a word of this launch alone.
over() {
  [ ! -r "$dir/launch" ] || ours || return 0
  js "$3"
  printf '{"code":%s,"at":%s,"incarnation":%s,"error":"%s","detail":%s}\n' \
    "$1" "$(date +%s)" "$incarnation" "$2" "$J" >"$dir/exit.tmp" &&
    mv -f "$dir/exit.tmp" "$dir/exit.$incarnation"
}

# The wrapper outlives signals to its group, so that it can write how the agent ended. Handlers, not ignores:
# an ignored signal would stay ignored in the agent.
trap : TERM INT HUP

# The environment and umask of a login, read by the user's own shell, printed by sh, between marks since profiles
# print. Without our terminal: an interactive shell would take it for itself, or be stopped when it cannot.
login_environment() {
  if command -v setsid >/dev/null 2>&1; then
    set -- setsid "$shell" "$1"
  elif command -v perl >/dev/null 2>&1; then
    set -- perl -MPOSIX -e 'setsid; exec @ARGV' "$shell" "$1"
  else
    set -- "$shell" "$1"
  fi
  # shellcheck disable=SC2016
  e_out=$(bounded 15 "$@" 'exec sh -c '\''echo "reconciler<"; echo "umask $(umask)"; export -p; echo ">reconciler"'\''' 2>/dev/null)
  case $e_out in
  *'reconciler<'*'>reconciler'*)
    e_out=${e_out#*reconciler<}
    e_out=${e_out%>reconciler*}
    ;;
  *) return 1 ;;
  esac
  e_term=$TERM e_tmux=${TMUX-} e_pane=${TMUX_PANE-} e_pwd=$PWD
  eval "$e_out"
  TERM=$e_term PWD=$e_pwd
  export TERM
  unset OLDPWD SHLVL _
  if [ -n "$e_tmux" ]; then
    TMUX=$e_tmux TMUX_PANE=$e_pane
    export TMUX TMUX_PANE
  else
    unset TMUX TMUX_PANE
  fi
}

# keep PATH N: a copy of a file of the conversation, before anything touches it.
keep() {
  [ -f "$1" ] && [ ! -L "$1" ] || return 0
  mkdir -p "$dir/snapshot" && cp "$1" "$dir/snapshot/$2" && printf '%s\n' "$1" >"$dir/snapshot/$2.path"
}

# place N SIZE SHA256 DESTINATION: put a file that was staged in place, fast-forward only: what lies there has to be
# a beginning of it. What lies there and is longer stays, if ours is a beginning of that. Never by clocks.
place() {
  staged=$dir/incoming/$1
  if [ ! -f "$staged" ] || [ "$(sha <"$staged")" != "$3" ]; then
    over 1 sync-failed "what was staged for $4 is not what was sent"
    exit 1
  fi
  if [ -L "$4" ] || { [ -e "$4" ] && [ ! -f "$4" ]; }; then
    over 1 sync-failed "$4 is no plain file"
    exit 1
  fi
  if [ -s "$4" ]; then
    have=$(($(wc -c <"$4")))
    if [ "$have" -gt "$2" ] && [ "$(head -c "$2" "$4" | sha)" = "$3" ]; then
      return 0
    fi
    whole_lines "$4"
    if [ "$have" -gt "$2" ] || [ "$(head -c "$have" "$staged" | sha)" != "$(head -c "$have" "$4" | sha)" ]; then
      over 1 diverged "$4 and the archive's copy differ within $have bytes"
      exit 1
    fi
  fi
  # Through a copy, so that the time of the file is now: agents remove what looks old.
  if ! { mkdir -p "${4%/*}" && cp "$staged" "$4.reconciler$$" && mv -f "$4.reconciler$$" "$4"; } 2>/dev/null; then
    rm -f "$4.reconciler$$"
    over 1 disk-full "cannot write $4"
    exit 1
  fi
}

# take_in FILE ARGS...: hand an export to the agent's own import, in the working directory.
take_in() {
  if ! bounded 120 "$command" "$@" >>"$dir/log" 2>&1; then
    over 1 sync-failed "$command $1 did not take the conversation in"
    exit 1
  fi
}

[ -n "$shell" ] || shell=${SHELL:-/bin/sh}
# Before the login environment: the guard that waits for us must never wait for a profile first.
# Opening blocks until there is a writer; the second one is ours, so a guard that died gives an end, not a hang.
secrets=
: >"$dir/env" &
exec 3<"$dir/env"
ended=n
while IFS= read -r line <&3; do
  [ "$line" = "$end" ] && ended=y && break
  secrets=$secrets$line'
'
done
exec 3<&-
rm -f "$dir/env"
if [ $ended = n ]; then
  over 1 aborted "the launch was cut off before it had its environment"
  exit 1
fi

login_environment -lc || :
expand_home "$workdir"
if ! cd -- "$EXPANDED" 2>/dev/null; then
  over 1 workdir-missing "$EXPANDED"
  exit 1
fi
workdir=$(pwd -P)
PWD=$workdir
export PWD
eval "$secrets"
expand_home "$command"
command=$EXPANDED
if ! command -v "$command" >/dev/null 2>&1; then
  login_environment -ilc || :
  eval "$secrets"
fi
unset secrets line
if ! command -v "$command" >/dev/null 2>&1; then
  over 127 agent-missing "$PATH"
  exit 127
fi
RECONCILER_FLEET=$fleet RECONCILER_SESSION=$name
export RECONCILER_FLEET RECONCILER_SESSION
