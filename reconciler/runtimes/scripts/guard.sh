# reconciler: the guard that every mutating operation runs under, and the operations themselves.
# Sent on stdin of an `sh` of its own, after common.sh and these settings:
#   FLEET OP FENCE HOLDER TTL NONCE   and what the operation needs.
# Prints one line `answer TAB nonce TAB json`. A broken connection does not end it half-way.

trap '' HUP PIPE
login_umask=$(umask)
umask 077
boot
state=${XDG_STATE_HOME:-$HOME/.local/state}/reconciler/$FLEET
me=
held=
scratch=

# answer JSON: on a line of its own, since others may speak there too. Where a look waits for it (AWAITED), a file says
# that it came, and whether it was done.
answer() {
  printf '\nanswer\t%s\t%s\n' "$NONCE" "$1"
  [ -n "${AWAITED-}" ] || return 0
  case $1 in '{"ok":true'*) a_sign=$NONCE.ok ;; *) a_sign=$NONCE.no ;; esac
  { { [ -d "$state/looks" ] || mkdir -p "$state/looks"; } && echo >"$state/looks/$a_sign"; } 2>/dev/null
}

# fail CODE SENTENCE: the operation is refused or did not work; locks are given back.
fail() {
  js "$2"
  release
  answer "{\"ok\":false,\"code\":\"$1\",\"message\":$J}"
  exit 0
}

# put FILE TEXT: replace a file whole: temporary name, sync, rename.
put() {
  if ! emit "$2" >"$1.tmp$$" 2>/dev/null; then
    rm -f "$1.tmp$$"
    fail disk-full "cannot write $1: is the disk full, or not writable?"
  fi
  sync "$1.tmp$$" 2>/dev/null || :
  mv -f "$1.tmp$$" "$1" 2>/dev/null || fail disk-full "cannot write $1: is the disk full?"
}

nap() { sleep 0.1 2>/dev/null || sleep 1; }

# A lock is a numbered file that holds `pid start boot`, or `free`. The highest number counts and is never
# removed by its holder, so a slow taker cannot mistake an old free lock for the present one. It is made by
# `ln`, which is atomic and fails where the name exists; a dead holder needs proof (pid, start, boot).
lock_top() {
  top=0
  for f in "$1".*; do
    number "${f##*.}" && [ "${f##*.}" -gt "$top" ] && top=${f##*.}
  done
}

# take LOCK SECONDS
take() {
  waited=0
  while :; do
    lock_top "$1"
    k_pid=free k_start='' k_boot=''
    [ "$top" -eq 0 ] || { read -r k_pid k_start k_boot <"$1.$top"; } 2>/dev/null || :
    free=y
    if [ "$k_pid" != free ]; then
      alive "$k_pid" "$k_start" "$k_boot"
      [ $? -eq 1 ] || free=n
    fi
    if [ $free = y ] && ln "$me" "$1.$((top + 1))" 2>/dev/null; then
      mine=$((top + 1))
      lock_top "$1"
      if [ "$top" -eq "$mine" ]; then
        held="$held $1.$mine"
        for f in "$1".*; do
          number "${f##*.}" && [ "${f##*.}" -lt "$mine" ] && rm -f "$f"
        done
        return 0
      fi
      rm -f "$1.$mine"
    fi
    waited=$((waited + 1))
    [ "$waited" -le "$(($2 * 10))" ] || fail locked "another operation (pid $k_pid) is at work on $1"
    nap
  done
}

# drop LOCK: give one lock back.
drop() {
  rest=
  # shellcheck disable=SC2086
  for l in $held; do
    if [ "${l%.*}" = "$1" ]; then
      printf 'free\n' >"$l.free$$" && mv -f "$l.free$$" "$l"
    else
      rest="$rest $l"
    fi
  done
  held=$rest
}

release() {
  # shellcheck disable=SC2086
  for l in $held; do drop "${l%.*}"; done
  [ -z "$scratch" ] || rm -rf "$scratch"
  scratch=
}

# introduce: $me becomes a file that says who we are, for locks; WHO is what it says.
introduce() {
  started $$
  WHO="$$ $STARTED $BOOT" # whoever asks whether another process lives changes STARTED
  scratch=$(mktemp -d "$state/locks/new.XXXXXX" 2>/dev/null) || fail disk-full "cannot write below $state: is the disk full?"
  me=$scratch/holder
  printf '%s\n' "$WHO" >"$me" 2>/dev/null || fail disk-full "cannot write below $state: is the disk full?"
}

# guard LOCK: the fence and the lease are ours, the operation was not done before, LOCK is held.
guard() {
  mkdir -p "$state/sessions" "$state/locks" "$state/ops" 2>/dev/null && [ -w "$state/ops" ] ||
    fail disk-full "cannot write below $state: is the disk full, or not writable?"
  introduce
  take "$state/locks/host" 10
  fence=0
  [ -r "$state/fence" ] && read -r fence <"$state/fence"
  number "$fence" || fence=0
  now=$(date +%s)
  l_holder='' l_until=0
  [ -r "$state/lease" ] && read -r l_until l_holder <"$state/lease"
  number "$l_until" || l_until=0
  l_end=$l_until
  # No lease lasts so long: the clock was set back.
  [ "$l_until" -le "$((now + 600))" ] || l_until=0
  if [ "$OP" = lease ]; then
    if [ -n "$l_holder" ] && [ "$l_holder" != "$HOLDER" ] && [ "$l_holder" != "${DEAD-}" ] && [ "$l_until" -gt "$now" ]; then
      fail lease-held "$l_holder holds the lease for another $((l_until - now)) s"
    fi
    FENCE=$((fence + 1))
    # Its end raises the fence too. One that never came counts now: whoever looked meanwhile can tell by the fence.
    [ -z "$l_holder" ] || [ "$l_holder" = "$HOLDER" ] || [ "$l_end" = 0 ] || FENCE=$((fence + 2))
    # Which machine the host `local` of this fleet is: another one that reads the same specs starts nothing twice.
    [ -z "${LOCAL-}" ] || { [ -s "$state/local" ] && [ -z "${TAKE-}" ]; } || put "$state/local" "$LOCAL
"
    find "$state/ops" -type f -mtime +7 -exec rm -f {} + 2>/dev/null
    find "$state/locks" -name 'new.*' -mtime +1 -exec rm -rf {} + 2>/dev/null
    find "$state/looks" -type f -mtime +1 -exec rm -f {} + 2>/dev/null
  elif [ "$FENCE" -lt "$fence" ]; then
    fail fence-stale "this host has seen fence $fence, newer than ours ($FENCE): another controller took over"
  elif [ -n "$l_holder" ] && [ "$l_holder" != "$HOLDER" ] && [ "$l_until" -gt "$now" ]; then
    fail lease-held "$l_holder holds the lease for another $((l_until - now)) s"
  fi
  [ "$FENCE" -le "$fence" ] || put "$state/fence" "$FENCE
"
  put "$state/lease" "$((now + TTL)) $HOLDER
"
  if [ "$OP" = lease ]; then
    release
    answer "{\"ok\":true,\"fence\":$FENCE,\"now\":$now}"
    exit 0
  fi
  if [ "$OP" = unlease ]; then
    put "$state/lease" "0 $HOLDER
"
    put "$state/fence" "$((FENCE + 1))
"
    release
    answer '{"ok":true}'
    exit 0
  fi
  if [ "$OP" = renew ]; then
    release
    answer '{"ok":true}'
    exit 0
  fi
  [ -z "$1" ] || take "$state/locks/$1" 30
  drop "$state/locks/host"
  if [ -r "$state/ops/$OP" ]; then
    IFS= read -r done_before <"$state/ops/$OP"
    release
    answer "$done_before"
    exit 0
  fi
}

# finish JSON: remember the answer, so that a repeat of this operation is a no-op, and give it.
finish() {
  put "$state/ops/$OP" "$1
"
  release
  answer "$1"
  exit 0
}

# session NAME EXPECT: its directory; refused unless EXPECT is its present incarnation (0: none yet), and where the name
# is an older one: whoever planned this means what bore the name before.
session() {
  dir=$state/sessions/$1
  [ ! -L "$dir" ] || fail stale "session $1 is called $(basename "$(readlink "$dir")") now"
  at=0
  [ -r "$dir/incarnation" ] && read -r at <"$dir/incarnation"
  [ "$at" = "$2" ] || fail stale "session $1 is at incarnation $at, the plan was made for $2"
}

# process_state: 0 an agent of this session lives, 1 proven gone, 2 cannot tell. Sets p_pid, p_group, ...
# of the live one. One file an incarnation, so that a late wrapper of an older launch overwrites nothing.
process_state() {
  p_worst=1
  for p_file in "$dir"/process.*; do
    case $p_file in *.tmp) continue ;; esac
    p_pid='' p_start='' p_boot='' p_inc=0 p_group=0 p_parent='' p_pstart=''
    { read -r p_pid p_start p_boot p_inc p_group p_parent p_pstart <"$p_file"; } 2>/dev/null || continue
    alive "$p_pid" "$p_start" "$p_boot"
    case $? in 0) return 0 ;; 2) p_worst=2 ;; esac
  done
  return $p_worst
}

# parent_state: as process_state, for the wrapper of the agent that was read last.
parent_state() {
  number "${p_parent-}" || return 1
  alive "$p_parent" "$p_pstart" "$p_boot"
}

# scope: SCOPE becomes the words that put a command in a systemd scope of its own where the user lingers, so that
# neither a logout nor the out-of-memory end of one session takes the others. Without lingering a user scope would
# die at logout: none then.
scope() {
  SCOPE=
  bus=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
  if [ -e "/var/lib/systemd/linger/$(id -un 2>/dev/null)" ] && [ -S "$bus/bus" ] &&
    PATH=$LOGIN_PATH command -v systemd-run >/dev/null 2>&1; then
    XDG_RUNTIME_DIR=$bus
    export XDG_RUNTIME_DIR
    SCOPE='systemd-run --user --scope --quiet --collect --'
  fi
}

# clean_env TERM: in a subshell: only what a login would give, and nothing of ours.
clean_env() {
  USER=$(id -un 2>/dev/null)
  for v in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
    case $v in
    HOME | SHELL | USER | LANG | TMPDIR | XDG_RUNTIME_DIR | XDG_STATE_HOME | DBUS_SESSION_BUS_ADDRESS) ;;
    *) unset "$v" 2>/dev/null || : ;;
    esac
  done
  PATH=$LOGIN_PATH LOGNAME=$USER TERM=$1
  export PATH USER LOGNAME TERM
}

# hand_over: INCARNATION EXPORTS END WAIT: start the launch in $dir with its environment on the FIFO there; until it has
# noted itself or how it ended, for at most WAIT seconds.
hand_over() {
  exec 4<>"$dir/env"
  emit "$EXPORTS
$END
" >&4 &
  writer=$!
  umask "$login_umask"
  scope
  runtime_start
  umask 077
  waited=0
  while [ ! -e "$dir/process.$INCARNATION" ] && [ ! -e "$dir/exit.$INCARNATION" ] && [ "$waited" -lt $((WAIT * 10)) ]; do
    nap
    waited=$((waited + 1))
  done
  kill "$writer" 2>/dev/null
  exec 4>&-
  rm -f "$dir/env"
}

# own_place: a directory for the session NAME, which none of another name uses.
own_place() {
  dir=$state/sessions/$NAME
  if [ -L "$dir" ]; then
    # Another session bore this name once, and what was started under it writes here: not before that is gone.
    process_state
    [ $? -eq 1 ] || fail name-taken "$(basename "$(readlink "$dir")") still runs in the directory of the name $NAME"
    rm -f "$dir"
  fi
  mkdir -p "$dir" 2>/dev/null || fail disk-full "cannot write below $state: is the disk full?"
}

# op_launch: NAME EXPECT INCARNATION RECORD LAUNCH EXPORTS END CONVERSATION
op_launch() {
  own_place
  session "$NAME" "$EXPECT"
  login_path
  runtime_needs
  # First the number, then the check; the agent's shell notes itself first, then checks the number (launch.sh):
  # so of two launches that overlap, one sees the other.
  put "$dir/incarnation" "$INCARNATION
"
  process_state
  case $? in
  0) back already-running "pid $p_pid of session $NAME lives" ;;
  2) back unknown "cannot tell whether pid $p_pid of session $NAME lives" ;;
  esac
  for f in "$state"/sessions/*; do
    # Nothing of it runs any more, so its older names are free.
    [ -L "$f" ] && [ "$(readlink "$f")" = "$NAME" ] && rm -f "$f"
  done
  rm -f "$dir"/exit.* "$dir"/process.* "$dir"/withdrawn.* "$dir/env" "$dir/stdin" "$dir/terminal"
  # Until the launch writes what to look for, a new conversation is looked for where none is: after a power cut in
  # between, it is begun, not resumed.
  before=
  { read -r before <"$dir/conversation"; } 2>/dev/null
  [ -n "$before" ] && [ "$before" = "$CONVERSATION" ] || put "$dir/probe" "store${tab}unbegun${tab}$dir/unbegun
"
  for f in events log; do [ ! -e "$dir/$f" ] || mv -f "$dir/$f" "$dir/$f.old"; done
  put "$dir/record.json" "$RECORD
"
  put "$dir/conversation" "$CONVERSATION
"
  put "$dir/launch" "$LAUNCH"
  mkfifo -m 600 "$dir/env" || fail disk-full "cannot make a FIFO in $dir"
  hand_over
  if [ -e "$dir/exit.$INCARNATION" ] && [ ! -e "$dir/process.$INCARNATION" ]; then
    IFS= read -r x <"$dir/exit.$INCARNATION"
    release
    answer "{\"ok\":false,\"code\":\"launch\",\"exit\":$x}"
    exit 0
  fi
  if [ ! -e "$dir/process.$INCARNATION" ]; then
    # It may still be on its way. Whoever reads this answer may launch the conversation on another host: it must not
    # come up then. Put first, then looked once more; the agent's shell notes itself first, then looks for this
    # (launch.sh): so one of the two sees the other. Where both do, it started, and has ended.
    put "$dir/withdrawn.$INCARNATION" ''
    [ -e "$dir/process.$INCARNATION" ] || fail failed "session $NAME did not start within $WAIT s"
  fi
  read -r p_pid p_rest <"$dir/process.$INCARNATION"
  finish "{\"ok\":true,\"pid\":${p_pid:-0}}"
}

# back CODE SENTENCE: give the number back, and fail.
back() {
  put "$dir/incarnation" "$EXPECT
"
  fail "$1" "$2"
}

# gone SECONDS: 0 as soon as the agent and its wrapper are proven gone.
gone() {
  waited=0
  while :; do
    process_state
    a=$?
    parent_state
    g=$?
    [ $a -eq 1 ] && [ $g -eq 1 ] && return 0
    [ "$waited" -lt "$(($1 * 10))" ] || return 1
    nap
    waited=$((waited + 1))
  done
}

# op_stop: NAME EXPECT KEYS SIGNAL RECORD: the agent's own exit, then the signal, then KILL, each bounded, and
# only ever the process group recorded for that incarnation.
op_stop() {
  session "$NAME" "$EXPECT"
  login_path
  process_state
  case $? in
  0) stop_agent ;;
  2) fail unknown "cannot tell whether pid $p_pid of session $NAME lives" ;;
  *) how=gone ;;
  esac
  runtime_end
  put "$dir/record.json" "$RECORD
"
  finish "{\"ok\":true,\"how\":\"$how\"}"
}

# op_restore: NAME EXPECT SIGNAL RECORD: a resume failed: end what came up; the conversation's files become again what
# they were before it. What the failed resume made of them is kept beside the snapshot.
op_restore() {
  session "$NAME" "$EXPECT"
  login_path
  process_state
  case $? in
  0) stop_agent ;;
  2) fail unknown "cannot tell whether pid $p_pid of session $NAME lives" ;;
  *) how=gone ;;
  esac
  runtime_end
  for f in "$dir"/snapshot/*.path; do
    { IFS= read -r r_to <"$f"; } 2>/dev/null || continue
    r_from=${f%.path}
    [ -f "$r_from" ] && [ -f "$r_to" ] && [ ! -L "$r_to" ] || continue
    [ "$(sha <"$r_from")" = "$(sha <"$r_to")" ] && continue
    cp "$r_to" "$r_from.failed" && cp "$r_from" "$r_to.reconciler$$" && mv -f "$r_to.reconciler$$" "$r_to" ||
      fail disk-full "cannot put $r_to back; the snapshot is $r_from"
  done
  put "$dir/record.json" "$RECORD
"
  finish "{\"ok\":true,\"how\":\"$how\"}"
}

stop_agent() {
  s_pid=$p_pid s_group=-$p_group how=
  # Of one that was adopted, and shares its group with whoever started it, the process alone.
  if [ "$p_group" = alone ]; then s_group=$s_pid; else
    number "$p_group" && [ "$p_group" -gt 1 ] || fail unknown "the process group of session $NAME is not known"
  fi
  for k in $KEYS; do
    process_state || break
    runtime_key "$k"
    how=keys
    nap
    nap
    nap
  done
  [ -z "$how" ] || gone 3 || how=
  for s in "$SIGNAL" KILL; do
    [ -z "$how" ] || break
    process_state || parent_state || break
    kill "-$s" "$s_group" 2>/dev/null
    gone 8 && how=$s
  done
  process_state
  [ $? -eq 1 ] || fail failed "pid $s_pid of session $NAME did not end, not even by KILL"
}

# op_send: NAME EXPECT TEXT RECORD: one message into a terminal. The record goes first, so that a message is
# never sent twice; what a power cut in between loses shows in the transcript.
op_send() {
  session "$NAME" "$EXPECT"
  login_path
  process_state || fail stale "session $NAME has no live process to send to"
  IFS= read -r s_record <"$dir/record.json"
  case $s_record in *"$HAS"*) ;; *) fail stale "session $NAME was sent another prompt meanwhile" ;; esac
  put "$dir/message" "$TEXT"
  runtime_load
  [ -z "$RECORD" ] || put "$dir/record.json" "$RECORD
"
  runtime_send
  rm -f "$dir/message"
  finish '{"ok":true}'
}

# op_record: NAME EXPECT RECORD CONVERSATION FILE TEXT
op_record() {
  session "$NAME" "$EXPECT"
  [ -z "$FILE" ] || put "$dir/$FILE" "$TEXT"
  [ -z "$CONVERSATION" ] || put "$dir/conversation" "$CONVERSATION
"
  put "$dir/record.json" "$RECORD
"
  finish '{"ok":true}'
}

# op_rename: NAME TO EXPECT RECORD: another name without a restart. The old one stays as a link: the wrapper and the
# agent's hooks go on writing to it; a look passes links over. First what needs space, then what only renames. Where that
# is cut off, the link tells whose record it is.
op_rename() {
  session "$NAME" "$EXPECT"
  take "$state/locks/session-$TO" 30
  r_to=$state/sessions/$TO
  [ ! -e "$r_to/record.json" ] || fail stale "there is a session $TO already"
  if [ -L "$r_to" ]; then rm -f "$r_to"; elif [ -d "$r_to" ]; then mv "$r_to" "$r_to.old$$"; fi
  login_path
  put "$dir/record.new" "$RECORD
"
  ln -s "$TO" "$scratch/link" 2>/dev/null || fail disk-full "cannot write below $state: is the disk full?"
  runtime_rename "$TO"
  mv "$dir" "$r_to" && mv "$scratch/link" "$dir" && mv -f "$r_to/record.new" "$r_to/record.json" ||
    fail failed "cannot rename $dir"
  finish '{"ok":true}'
}

# op_forget: NAME EXPECT: the session goes on, we let go of it. Nothing is deleted. Its terminal gets a name that no
# session can have: the next one of this name would end it otherwise.
op_forget() {
  session "$NAME" "$EXPECT"
  mkdir -p "$state/forgotten"
  f_to=$state/forgotten/$NAME-$(date +%s)
  [ ! -e "$f_to" ] || f_to=$f_to-$$
  login_path
  process_state
  [ $? -eq 1 ] || runtime_rename "forgotten+${f_to##*/}"
  mv "$dir" "$f_to" || fail failed "cannot move $dir"
  finish '{"ok":true}'
}
