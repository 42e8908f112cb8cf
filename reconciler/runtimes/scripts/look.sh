# reconciler: one look at this host. Defined once in a long-lived shell, then called for each look.
# Prints lines `kind TAB name TAB json` and a trailer `end TAB nonce TAB count`; or `same TAB nonce TAB seconds`, see
# glance.sh. Changes nothing but marks of its own below `looks/`.

boot
look_node=$(uname -n)
look_system=$(uname -s)
look_arch=$(uname -m)
look_user=$(id -un 2>/dev/null)
look_machine=
if [ -r /etc/machine-id ]; then
  read -r look_machine </etc/machine-id
else
  look_machine=$(sysctl -n kern.uuid 2>/dev/null)
fi
[ -n "$look_machine" ] || look_machine=$look_node
look_stat='%s %Y' look_stat_flag=-c
stat -c %s / >/dev/null 2>&1 || look_stat='%z %m' look_stat_flag=-f
look_tmux=
look_path_known=

look_out() {
  look_count=$((look_count + 1))
  printf '%s\t%s\t%s\n' "$1" "$2" "$3"
}

look_host() {
  look_now=$(date +%s)
  js "$look_node"; h=$J
  js "$look_user"; h=$h,\"user\":$J
  js "$HOME"; h=$h,\"home\":$J
  js "$look_system"; h=$h,\"system\":$J
  js "$look_arch"; h=$h,\"arch\":$J
  js "$look_machine"; h=$h,\"machine\":$J
  js "$BOOT"; h=$h,\"boot\":$J
  js "$look_state"; h=$h,\"state\":$J
  js "${SHELL:-/bin/sh}"; h=$h,\"shell\":$J
  js "${LOGIN_PATH-}"; h=$h,\"path\":$J
  js "$look_tmux"; h=$h,\"tmux\":$J
  f=0
  [ -r "$look_state/fence" ] && read -r f <"$look_state/fence"
  number "$f" || f=0
  l_line=
  [ -r "$look_state/local" ] && IFS= read -r l_line <"$look_state/local"
  js "$l_line"; h=$h,\"local\":$J
  look_out host - "{\"hostname\":$h,\"now\":$look_now,\"fence\":$f}"
}

# look_ask: look_list becomes what the fleet's tmux server says of its panes, where it is there and nobody else asks it.
look_ask() {
  look_list= look_answered=1
  [ -z "$look_elsewhere" ] && [ -S "$look_state/tmux" ] && [ -n "$look_tmux" ] || return 0
  look_list=$(PATH=$LOGIN_PATH TMUX='' bounded 5 tmux -S "$look_state/tmux" list-panes -a \
    -F "#{session_name}$tab#{pane_pid}$tab#{pane_dead}$tab#{session_attached}$tab#{pane_title}" 2>&1)
  look_answered=$?
}

look_panes() {
  case $look_answered in
  0) ;;
  1) return 0 ;;
  *) look_out tmux - '{"error":"tmux did not answer"}'; return 0 ;;
  esac
  look_panes_out pane
}

# look_panes_out KIND: the lines of look_list as what was seen of panes.
look_panes_out() {
  look_list=$(printf '%s\n' "$look_list" | tr -d '\000-\010\013-\037\177' | sed "s/[\\\\\"]//g
    s/^\([a-z0-9_-]*\)$tab\([0-9]*\)$tab\([01]\)$tab\([0-9]*\)$tab\(.*\)\$/\1$tab{\"pid\":\2,\"dead\":\3,\"attached\":\4,\"title\":\"\5\"}/
    t
    d")
  while IFS=$tab read -r p_name p_json; do
    # What begins with an underscore is the hidden session that a control client lives in.
    case $p_name in '' | _*) ;; *) look_out "$1" "$p_name" "$p_json" ;; esac
  done <<PANES
$look_list
PANES
}

# look_adopted NAME FILE: the pane of a session that was adopted, in the user's own tmux server. Only while its agent
# lives: what is in that pane then is the user's.
look_adopted() {
  { IFS=$tab read -r t_pane t_pid t_start t_boot t_socket <"$2"; } 2>/dev/null || return 0
  [ -S "$t_socket" ] && [ -n "$look_tmux" ] && alive "$t_pid" "$t_start" "$t_boot" || return 0
  look_list=$(PATH=$LOGIN_PATH TMUX='' bounded 5 tmux -S "$t_socket" display-message -p -t "$t_pane" \
    "$1$tab#{pane_pid}$tab#{pane_dead}$tab#{session_attached}$tab#{pane_title}" 2>/dev/null) || return 0
  case $look_list in "$1$tab$t_pid$tab"*) look_panes_out terminal ;; esac
}

# look_fill PLACEHOLDER VALUE TEXT: FILLED becomes TEXT with VALUE in that place. Of a pattern in quotes within quotes,
# zsh takes the inner ones for part of it.
look_fill() { FILLED=${3%%"$1"*}$2${3#*"$1"}; }

# look_where DIRECTORY PATH: WHERE becomes the path of a probe, of the session in that directory whose agent is l_pid.
look_where() {
  WHERE=$2
  case $WHERE in *'{session_id}'* | *'{session_id_8}'*)
    l_id=
    { read -r l_id <"$1/conversation"; } 2>/dev/null
    case $l_id in '' | *[!A-Za-z0-9_.-]*) return 1 ;; esac
    case $WHERE in
    *'{session_id_8}'*)
      l_rest=${l_id#????????}
      look_fill '{session_id_8}' "${l_id%"$l_rest"}" "$WHERE"
      ;;
    *) look_fill '{session_id}' "$l_id" "$WHERE" ;;
    esac
    WHERE=$FILLED
    ;;
  esac
  case $WHERE in *'{pid}'*) look_fill '{pid}' "${l_pid:-0}" "$WHERE" && WHERE=$FILLED ;; esac
}

# look_probe NAME KIND KEY PATH: what the agent wanted to know at each look.
look_probe() {
  look_where "$look_state/sessions/$1" "$4" || return 0
  set -- "$1" "$2" "$3" "$WHERE"
  js "$3"
  k=$J
  case $2 in
  file | tail)
    [ -f "$4" ] && [ -r "$4" ] || return 0
    if [ "$2" = file ]; then d=$(head -c 4096 "$4" | base64 | tr -d '\n'); else d=$(tail -c 4096 "$4" | base64 | tr -d '\n'); fi
    look_out fact "$1" "{\"key\":$k,\"data\":\"$d\"}"
    ;;
  store | names)
    look_out "$2" "$1" "{\"key\":$k}"
    l_n=0
    IFS=
    # shellcheck disable=SC2086
    for f in $4; do
      [ -f "$f" ] && [ ! -L "$f" ] || continue
      l_n=$((l_n + 1))
      [ "$l_n" -le 200 ] || break
      if [ "$2" = names ]; then
        js "${f##*/}"
        look_out names "$1" "{\"key\":$k,\"base\":$J}"
      else
        s=$(stat "$look_stat_flag" "$look_stat" "$f" 2>/dev/null) || s="$(wc -c <"$f") 0"
        js "$f"
        look_out store "$1" "{\"key\":$k,\"path\":$J,\"size\":${s% *},\"mtime\":${s#* }}"
      fi
    done
    unset IFS
    ;;
  esac
}

look_session() {
  l_name=${1##*/}
  l_pid=
  case $l_name in *[!a-z0-9_-]* | '') js "$l_name"; look_out foreign - "$J"; return ;; esac
  l_line=
  if [ -r "$1/record.json" ]; then
    IFS= read -r l_line <"$1/record.json"
    look_out record "$l_name" "$l_line"
  fi
  l_inc=0
  { read -r l_inc <"$1/incarnation"; } 2>/dev/null
  number "$l_inc" || l_inc=0
  look_out session "$l_name" "{\"incarnation\":$l_inc}"
  for f in "$1"/process.*; do
    { read -r q_pid q_start q_boot q_inc q_group q_parent q_pstart <"$f"; } 2>/dev/null && number "$q_pid" || continue
    # Half a note proves nothing: without a boot id nobody can tell, as the guard says too.
    number "$q_inc" || q_inc=0
    number "$q_group" || q_group=0
    alive "$q_pid" "$q_start" "$q_boot"
    case $? in 0) a=true l_pid=$q_pid ;; 1) a=false && look_exit "$1/exit.$q_inc" ;; *) a=null ;; esac
    js "$q_start"; s=$J
    js "$q_boot"; b=$J
    look_out process "$l_name" \
      "{\"pid\":$q_pid,\"start\":$s,\"boot\":$b,\"incarnation\":$q_inc,\"group\":$q_group,\"alive\":$a}"
  done
  for f in "$1"/exit.*; do
    { IFS= read -r l_line <"$f"; } 2>/dev/null && case $f in *.tmp) ;; *) look_out exit "$l_name" "$l_line" ;; esac
  done
  [ -z "$l_pid" ] || [ ! -r "$1/terminal" ] || look_adopted "$l_name" "$1/terminal"
  if [ -s "$1/events" ]; then
    l_line=$(tail -c 4096 "$1/events" | tail -n 1)
    look_out event "$l_name" "$l_line"
  fi
  lock_holder "$look_state/locks/session-$l_name" && look_out lock "$l_name" '{"held":true}'
  if [ -r "$1/probe" ]; then
    while IFS=$tab read -r q_kind q_key q_path; do
      look_probe "$l_name" "$q_kind" "$q_key" "$q_path"
    done <"$1/probe"
  fi
}

# look_forgotten DIRECTORY: the conversation of a session that was let go of, as long as its agent may live.
look_forgotten() {
  l_id=
  { read -r l_id <"$1/conversation"; } 2>/dev/null
  case $l_id in '' | *[!A-Za-z0-9_.-]*) return 0 ;; esac
  for f in "$1"/process.*; do
    { read -r q_pid q_start q_boot q_inc <"$f"; } 2>/dev/null && number "$q_pid" || continue
    alive "$q_pid" "$q_start" "$q_boot"
    [ $? -eq 1 ] && continue
    look_out check forgotten "{\"value\":\"$l_id\",\"found\":\"$q_pid\"}"
    return 0
  done
}

# look_exit FILE: an agent has ended, and its wrapper (q_parent) notes how, within milliseconds. Whoever looked in
# between would take a task that has just been completed for one that is lost.
look_exit() {
  l_n=0
  while [ ! -e "$1" ] && [ "$l_n" -lt 10 ] && alive "$q_parent" "$q_pstart" "$q_boot"; do
    sleep 0.1 2>/dev/null || sleep 1
    l_n=$((l_n + 1))
  done
}

# look_file COMMAND: FOUND becomes its file on LOGIN_PATH. `command -v` would name a builtin of this shell instead.
look_file() {
  FOUND=
  case $1 in
  */*)
    FOUND=$(command -v "$1" 2>/dev/null)
    case $FOUND in /*) ;; *) FOUND= ;; esac
    return
    ;;
  esac
  l_ifs=$IFS
  IFS=:
  # shellcheck disable=SC2086
  for f in $LOGIN_PATH; do
    [ -f "${f:-.}/$1" ] && [ -x "${f:-.}/$1" ] && FOUND=${f:-.}/$1 && break
  done
  IFS=$l_ifs
  case $FOUND in /*) ;; *) FOUND= ;; esac
}

# lock_holder LOCK: 0 when a live process (or one that cannot be proven dead) holds it. See guard.sh.
lock_holder() {
  l_top=0
  for f in "$1".*; do
    number "${f##*.}" && [ "${f##*.}" -gt "$l_top" ] && l_top=${f##*.}
  done
  [ "$l_top" -gt 0 ] || return 1
  { read -r k_pid k_start k_boot <"$1.$l_top"; } 2>/dev/null || return 1
  [ "$k_pid" = free ] && return 1
  alive "$k_pid" "$k_start" "$k_boot"
  [ $? -ne 1 ]
}

# look_check KIND VALUE: is a command on the login PATH, is a directory there, which version is it.
look_check() {
  expand_home "$2"
  js "$2"
  c=$J
  case $1 in
  command)
    look_file "$EXPANDED"
    [ -n "$FOUND" ] || { login_path "$EXPANDED" && look_file "$EXPANDED"; }
    js "$FOUND"
    ;;
  digest)
    # `LENGTH PATH`: of the first LENGTH bytes, to tell whether one copy of a file is the beginning of another.
    # `lines PATH`: how many bytes its whole lines are, and their digest.
    f=
    if [ -f "${2#* }" ] && [ ! -L "${2#* }" ] && [ "${2%% *}" = lines ]; then
      have=$(($(wc -c <"${2#* }")))
      whole_lines "${2#* }"
      f="$have $(head -c "$have" "${2#* }" | sha)"
    fi
    [ -f "${2#* }" ] && [ ! -L "${2#* }" ] && number "${2%% *}" && f=$(head -c "${2%% *}" "${2#* }" | sha)
    js "$f"
    ;;
  version)
    # The program and its arguments, one word each: drivers name them, and none holds a space.
    # shellcheck disable=SC2086
    f=$(PATH=$LOGIN_PATH bounded 10 ${EXPANDED} 2>&1 | head -c 400)
    js "$f"
    ;;
  directory)
    f=$(cd -- "$EXPANDED" 2>/dev/null && pwd -P)
    js "$f"
    ;;
  after) case $look_awaited in *" ${2%% *} "*) js y ;; *) js '' ;; esac ;;
  esac
  look_out check "$1" "{\"value\":$c,\"found\":$J}"
}

# look_await [KIND VALUE]...: until the operations have answered that `after` names (`NONCE TENTHS`), for 1.5 s at most;
# then, if they did what they were to do, so many tenths of a second more. look_awaited becomes those.
look_await() {
  l_left=30 l_settle=0 look_awaited=' '
  while [ $# -ge 2 ]; do
    l_sign=$look_state/looks/${2%% *}
    if [ "$1" = after ]; then
      while [ ! -e "$l_sign.ok" ] && [ ! -e "$l_sign.no" ] && [ "$l_left" -gt 0 ]; do
        sleep 0.05 2>/dev/null || { sleep 1 && l_left=$((l_left - 19)); }
        l_left=$((l_left - 1))
      done
      if [ -e "$l_sign.ok" ]; then
        look_awaited="$look_awaited${2%% *} "
        [ "${2##* }" -le "$l_settle" ] || l_settle=${2##* }
      fi
      rm -f "$l_sign.ok" "$l_sign.no"
    fi
    shift 2
  done
  [ "$l_settle" -eq 0 ] || sleep "0.$l_settle" 2>/dev/null || sleep 1
}

# reconciler_look FLEET NONCE [KIND VALUE]...
# `panes elsewhere`: somebody else asks tmux. `since NONCE`: that answer may be repeated, see glance.sh.
reconciler_look() {
  if [ -z "$look_path_known" ]; then login_path && look_path_known=y; fi
  if [ -z "$look_tmux" ]; then look_tmux=$(PATH=$LOGIN_PATH bounded 5 tmux -V 2>/dev/null); fi
  look_state=${XDG_STATE_HOME:-$HOME/.local/state}/reconciler/$1
  look_nonce=$2
  look_since= look_elsewhere=
  look_fleet=$1
  shift 2
  while :; do
    case ${1-} in
    since) look_since=$2 ;;
    panes) look_elsewhere=y ;;
    *) break ;;
    esac
    shift 2
  done
  case " $* " in
  *' after '*) look_once=y && look_await "$@" && look_ask ;;
  *' digest '* | *' version '*) look_once=y && look_ask ;; # asked once: nothing to repeat, nothing to forget
  *) look_once= && look_glance "$look_fleet" "$@" && return ;;
  esac
  (
    LC_ALL=C
    export LC_ALL
    look_count=0
    look_host
    look_panes
    for d in "$look_state"/sessions/*; do
      if [ -L "$d" ]; then
        js "${d##*/}"
        c=$J
        js "$(readlink "$d")"
        look_out check link "{\"value\":$c,\"found\":$J}"
      elif [ -d "$d" ] && { [ -e "$d/incarnation" ] || [ -e "$d/record.json" ] || [ ! -d "$d/turns" ]; }; then
        # Where a group chat asked somebody who is no session here there are turns alone.
        look_session "$d"
      fi
    done
    for d in "$look_state"/forgotten/*; do
      [ ! -d "$d" ] || look_forgotten "$d"
    done
    while [ $# -ge 2 ]; do
      look_check "$1" "$2"
      shift 2
    done
    printf 'end\t%s\t%s\n' "$look_nonce" "$look_count"
  ) </dev/null
  [ -n "$look_once" ] || look_mark
}
