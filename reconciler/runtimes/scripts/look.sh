# reconciler: one look at this host. Defined once in a long-lived shell, then called for each look.
# Prints lines `kind TAB name TAB json` and a trailer `end TAB nonce TAB count`; or `same TAB nonce TAB seconds`, see
# glance.sh. Changes nothing but marks of its own below `looks/`.

boot
look_locale=${LC_ALL-}
LC_ALL=C CDPATH=
export LC_ALL
line_end='
'
look_system= look_node= look_arch=
if [ -r /proc/sys/kernel/arch ]; then # Linux since 6.1
  read -r look_system </proc/sys/kernel/ostype
  read -r look_node </proc/sys/kernel/hostname
  read -r look_arch </proc/sys/kernel/arch
fi
if [ -z "$look_system" ] || [ -z "$look_node" ] || [ -z "$look_arch" ]; then
  # shellcheck disable=SC2046
  set -- $(uname -snm)
  [ $# -eq 3 ] || set -- "$(uname -s)" "$(uname -n)" "$(uname -m)"
  look_system=$1 look_node=$2 look_arch=$3
fi
look_user=$(id -un 2>/dev/null)
look_machine=
if [ -r /etc/machine-id ]; then
  read -r look_machine </etc/machine-id
else
  look_machine=$(sysctl -n kern.uuid 2>/dev/null)
fi
[ -n "$look_machine" ] || look_machine=$look_node
look_stat=
look_tmux=
look_path_known=
look_glances=
look_host_kept=
look_kept= # what is remembered of sessions may be repeated, as far as it still holds
look_total=0
look_epoch=
UP=

# look_out KIND NAME TEXT: one more line. Lines are printed many at once: each time costs whoever reads them.
look_out() {
  look_count=$((look_count + 1))
  look_text=$look_text$1$tab$2$tab$3$line_end
}

# look_flush LEAST: print them when they are that long.
look_flush() {
  [ "${#look_text}" -lt "$1" ] || { emit "$look_text" && look_text=; }
}

look_host() {
  # Asked anew at each look that repeats nothing; in between, the time since the boot goes on as the clock does.
  if [ -n "$look_kept" ] && [ -n "$look_epoch" ]; then
    look_now=$((look_epoch + UP))
  else
    look_now=$(date +%s)
    look_epoch=
    [ -z "$UP" ] || look_epoch=$((look_now - UP))
  fi
  if [ -n "$look_host_kept" ]; then
    look_out host - "$look_about,\"now\":$look_now,\"fence\":$look_fence}"
    return
  fi
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
  look_fence=0
  [ -r "$look_state/fence" ] && read -r look_fence <"$look_state/fence"
  number "$look_fence" || look_fence=0
  l_line=
  [ -r "$look_state/local" ] && IFS= read -r l_line <"$look_state/local"
  js "$l_line"; h=$h,\"local\":$J
  look_about="{\"hostname\":$h"
  look_out host - "$look_about,\"now\":$look_now,\"fence\":$look_fence}"
}

# look_bounded SECONDS COMMAND...: as `bounded`, in a subshell that ends with it, under the login's PATH and language.
look_bounded() {
  PATH=$LOGIN_PATH TMUX='' LC_ALL=$look_locale
  export PATH TMUX LC_ALL
  if command -v timeout >/dev/null 2>&1; then
    look_bound=$1
    shift
    exec timeout -k 1 "$look_bound" "$@" </dev/null
  fi
  bounded "$@"
}

# look_ask: look_list becomes what the fleet's tmux server says of its panes, where it is there and nobody else asks it.
# A server tells its version too, which spares asking the program.
look_ask() {
  look_list= look_answered=1 l_version=
  if [ -z "$look_elsewhere" ] && [ -S "$look_state/tmux" ]; then
    [ -n "$look_tmux" ] || l_version="#{version}$tab"
    look_list=$(look_bounded 5 tmux -u -S "$look_state/tmux" list-panes -a \
      -F "$l_version#{session_name}$tab#{pane_pid}$tab#{pane_dead}$tab#{session_attached}$tab#{pane_title}" 2>&1)
    look_answered=$?
    case $look_answered in 126 | 127) look_answered=1 look_list= ;; esac
  fi
  [ -z "$look_tmux" ] || return 0
  if [ -n "$l_version" ] && [ "$look_answered" = 0 ]; then
    case $look_list in [0-9n]*"$tab"*) look_tmux="tmux ${look_list%%"$tab"*}" && return 0 ;; esac
  fi
  look_tmux=$(look_bounded 5 tmux -V 2>/dev/null)
}

# look_panes: as tmux printed it, a line each; whoever reads it checks it.
look_panes() {
  case $look_answered in
  0) ;;
  1) return 0 ;;
  *) look_out tmux - '{"error":"tmux did not answer"}'; return 0 ;;
  esac
  IFS=$line_end
  set -f
  for l in $look_list; do
    [ -z "$l_version" ] || l=${l#*"$tab"}
    # What begins with an underscore is the hidden session that a control client lives in.
    case $l in _*) ;; *) look_out panes - "$l" ;; esac
  done
  set +f
  unset IFS
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

# look_login [COMMAND]: `login_path`, in the login's own language.
look_login() {
  LC_ALL=$look_locale
  login_path "$@"
  LC_ALL=C
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
  IFS=:
  # shellcheck disable=SC2086
  for f in $LOGIN_PATH; do
    [ -f "${f:-.}/$1" ] && [ -x "${f:-.}/$1" ] && FOUND=${f:-.}/$1 && break
  done
  unset IFS
  case $FOUND in /*) ;; *) FOUND= ;; esac
}

# look_locks: look_wanted becomes the locks that count: of each session the one with the highest number. See guard.sh.
look_locks() {
  look_wanted= look_busy= l_lock= l_top=0
  for f in "$look_state"/locks/session-* :; do
    case ${f##*/} in *.*.* | *.*[!0-9]* | *.) continue ;; session-*.*) ;; :) ;; *) continue ;; esac
    if [ "${f%.*}" != "$l_lock" ]; then
      [ "$l_top" -eq 0 ] || look_wanted=$look_wanted$line_end$l_lock.$l_top
      l_lock=${f%.*} l_top=0
    fi
    [ "$f" = : ] || [ "${f##*.}" -le "$l_top" ] || l_top=${f##*.}
  done
}

# look_holders: look_held becomes the names of the sessions that an operation is at work on, of the locks look_busy: those
# which a live process holds, or one that cannot be proven dead.
look_holders() {
  look_held=' '
  for f in $look_busy; do
    k_pid= k_start= k_boot=
    read -r k_pid k_start k_boot <"$f" || continue
    [ "$k_pid" = free ] && continue
    alive "$k_pid" "$k_start" "$k_boot"
    [ $? -eq 1 ] || { f=${f##*/session-} && look_held="$look_held${f%.*} "; }
  done
}

# look_real DIRECTORY: FOUND becomes its path without links.
look_real() {
  FOUND= l_here=$PWD
  if cd -P -- "$1" 2>/dev/null; then
    FOUND=$PWD
    cd -- "$l_here" || cd /
  fi
}

# look_check KIND VALUE: is a command on the login PATH, is a directory there, which version is it.
look_check() {
  expand_home "$2"
  js "$2"
  c=$J
  case $1 in
  command)
    look_file "$EXPANDED"
    [ -n "$FOUND" ] || { look_login "$EXPANDED" && look_file "$EXPANDED"; }
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
    look_real "$EXPANDED"
    js "$FOUND"
    ;;
  after) case $look_awaited in *" ${2%% *} "*) js y ;; *) js '' ;; esac ;;
  esac
  look_out check "$1" "{\"value\":$c,\"found\":$J}"
}

# look_beside: what else is where sessions are.
look_beside() {
  IFS=$line_end
  set -f
  for f in $look_links; do
    js "${f##*/}"
    c=$J
    js "$(readlink "$f")"
    look_out check link "{\"value\":$c,\"found\":$J}"
  done
  for f in $look_foreign; do js "$f" && look_out foreign - "$J"; done
  set +f
  unset IFS
  for d in "$look_state"/forgotten/*; do
    [ ! -d "$d" ] || look_forgotten "$d"
  done
}

# look_whole [KIND VALUE]...: everything. What is remembered of sessions (look_kept) and of all else (look_host_kept) is
# told again.
look_whole() {
  if [ -n "$look_host_kept" ]; then
    look_wanted= look_busy=
  else
    look_locks
    look_walk
  fi
  look_read_all
  look_sizes= look_sized=
  for l_i in $look_stale; do look_session "$l_i"; done
  look_size
  if [ -z "$look_host_kept" ]; then
    look_count=0 look_text=
    look_beside
    while [ $# -ge 2 ]; do
      look_check "$1" "$2"
      shift 2
    done
    look_rest=$look_text look_rest_count=$look_count
  fi
  look_count=0 look_text=
  look_host
  look_count=$((look_count + look_rest_count)) look_text=$look_text$look_rest
  look_panes
  l_i=0
  while [ "$l_i" -lt "$look_total" ]; do
    l_i=$((l_i + 1))
    eval "look_text=\$look_text\$look_text_$l_i look_count=\$((look_count + look_count_$l_i)) l_name=\${look_dir_$l_i##*/}"
    case $look_held in *" $l_name "*) look_out lock "$l_name" '{"held":true}' ;; esac
    look_flush 16000
  done
  look_text=${look_text}end$tab$look_nonce$tab$look_count$line_end
  look_flush 0
}

# reconciler_look FLEET NONCE [KIND VALUE]...
# `panes elsewhere`: somebody else asks tmux. `since NONCE`: that answer may be repeated, see glance.sh.
reconciler_look() {
  if [ -z "$look_path_known" ]; then
    look_login && look_path_known=y
  fi
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
  # What is asked once is nothing to repeat, and nothing to forget what is remembered for.
  look_once=
  case " $* " in
  *' after '*)
    look_once=y look_awaited=
    [ -z "$look_glances" ] || look_await "$@"
    ;;
  *' digest '* | *' version '*) look_once=y ;;
  esac
  if [ -n "$look_once" ] || [ -z "$look_glances" ]; then
    look_ask
  else
    look_glance "$look_fleet" "$@" 2>/dev/null && return
  fi
  if [ -n "$look_once" ]; then
    # In a subshell, since what it reads of sessions is to be forgotten.
    # shellcheck disable=SC2030
    (look_kept= look_host_kept= look_stale= look_lives=' ' && look_whole "$@") </dev/null 2>/dev/null
  else
    # shellcheck disable=SC2031
    [ -n "$look_kept" ] || look_host_kept= look_stale= look_lives=' '
    look_whole "$@" </dev/null 2>/dev/null
    [ -z "$look_glances" ] || look_mark
  fi
}
