# reconciler: one look at this host. Defined once in a long-lived shell, then called for each look.
# Prints lines `kind TAB name TAB json` and a trailer `end TAB nonce TAB count`; or `same TAB nonce TAB seconds`, see
# glance.sh. Changes nothing but marks of its own below `looks/`.

boot
look_locale=${LC_ALL-}
LC_ALL=C CDPATH=
export LC_ALL
line_end='
'
# shellcheck disable=SC2046
set -- $(uname -snm)
[ $# -eq 3 ] || set -- "$(uname -s)" "$(uname -n)" "$(uname -m)"
look_system=$1 look_node=$2 look_arch=$3
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

# look_adopted NAME FILE: the pane of a session that was adopted, in the user's own tmux server. Only while its agent
# lives: what is in that pane then is the user's.
look_adopted() {
  { IFS=$tab read -r t_pane t_pid t_start t_boot t_socket <"$2"; } 2>/dev/null || return 0
  [ -S "$t_socket" ] && [ -n "$look_tmux" ] && alive "$t_pid" "$t_start" "$t_boot" || return 0
  l=$(look_bounded 5 tmux -u -S "$t_socket" display-message -p -t "$t_pane" \
    "$1$tab#{pane_pid}$tab#{pane_dead}$tab#{session_attached}$tab#{pane_title}" 2>/dev/null) || return 0
  case $l in "$1$tab$t_pid$tab"[01]"$tab"[0-9]*) ;; *) return 0 ;; esac
  l=${l#"$1$tab$t_pid$tab"}
  t_dead=${l%%"$tab"*}
  l=${l#?"$tab"}
  number "${l%%"$tab"*}" || return 0
  js "${l#*"$tab"}"
  look_out terminal "$1" "{\"pid\":$t_pid,\"dead\":$t_dead,\"attached\":${l%%"$tab"*},\"title\":$J}"
}

# look_fill PLACEHOLDER VALUE TEXT: FILLED becomes TEXT with VALUE in that place. Of a pattern in quotes within quotes,
# zsh takes the inner ones for part of it.
look_fill() { FILLED=${3%%"$1"*}$2${3#*"$1"}; }

# look_where PATH: WHERE becomes the path of a probe, of the session whose conversation is l_id and whose agent l_pid.
look_where() {
  WHERE=$1
  case $WHERE in *'{session_id}'* | *'{session_id_8}'*)
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

# -- what is read of sessions ------------------------------------------------------------------------------------------
# Sessions have numbers, in the order of their names; look_dir_3 is the directory of the third. What is remembered of one
# (look_text_3, what it printed, and what that rests on) is used again only as glance.sh allows.

# look_fresh FILE: it was read before (l_known) and is not newer than the mark was (l_newer).
look_fresh() {
  case $l_known in *"$line_end$1$line_end"*) ;; *) return 1 ;; esac
  case $l_newer in *"$line_end$1$line_end"*) return 1 ;; esac
}

# look_walk: look_stale becomes the numbers of those that have to be read; look_links, look_foreign what else is there.
look_walk() {
  l_old=$look_stale
  look_stale= look_links= look_foreign= l_i=0
  for d in "$look_state"/sessions/*; do
    if [ -L "$d" ]; then
      look_links=$look_links$line_end$d
    elif [ -d "$d" ]; then
      case ${d##*/} in *[!a-z0-9_-]*) look_foreign=$look_foreign$line_end${d##*/} && continue ;; esac
      l_i=$((l_i + 1))
      if [ -n "$look_kept" ] && [ "$l_i" -le "$look_total" ] && eval "[ \"\$look_dir_$l_i\" = \"\$d\" ]"; then
        case $l_old in *" $l_i "*) ;; *) continue ;; esac
      else
        eval "look_dir_$l_i=\$d look_files_$l_i= look_single_$l_i= look_newer_$l_i= look_facts_$l_i= look_event_$l_i="
      fi
      look_stale="$look_stale $l_i"
    fi
  done
  look_total=$l_i
}

# look_lines COMMAND...: it prints of each file of look_wanted, in this order, a line `==> FILE <==` and something;
# look_take gets the last line of that. 1, and all was for nothing, when that is not what it prints.
look_lines() {
  IFS=$line_end
  set -f
  # One file alone would get no such line.
  # shellcheck disable=SC2086
  l_got=$("$@" $look_wanted /dev/null 2>/dev/null </dev/null)
  # shellcheck disable=SC2086
  set -- $look_wanted /dev/null
  l_file= l_line=
  for l in $l_got; do
    case $l in
    "==> ${1-} <==")
      [ -z "$l_file" ] || look_take "$l_file" "$l_line"
      l_file=$1 l_line=
      shift
      ;;
    "==> "*" <==") break ;; # somebody wrote such a line, or one is missing
    *) l_line=$l ;;
    esac
  done
  set +f
  unset IFS
  [ $# -eq 0 ] && [ "$l_file" = /dev/null ] && [ -z "$l_line" ]
}

# look_take FILE LINE: what a file of the state of a session says. They come in the order of the sessions.
look_take() {
  while [ "$l_at" -lt "$look_total" ] && eval "[ \"\$look_dir_$l_at\" != \"\${1%/*}\" ]"; do l_at=$((l_at + 1)); done
  case ${1##*/} in
  record.json) eval "look_record_$l_at=r\$2" ;;
  incarnation) eval "look_number_$l_at=\$2" ;;
  conversation) eval "look_id_$l_at=\$2" ;;
  process.*) eval "look_processes_$l_at=\$look_processes_$l_at\$2\$line_end" ;;
  exit.*) eval "look_exits_$l_at=\$look_exits_$l_at\$2\$line_end" ;;
  events) eval "look_event_$l_at=\$2" ;;
  stat)
    # The process lives, and began then: look_lives says so.
    case $2 in *') '*) ;; *) return 0 ;; esac
    l_file_of=${1%/stat}
    IFS=' '
    # shellcheck disable=SC2086
    set -- ${2##*) }
    IFS=$line_end
    case ${1-} in '' | Z | X | x) ;; *) look_lives="$look_lives${l_file_of##*/}:${20-} " ;; esac
    ;;
  esac
}

# look_want NUMBER: look_wanted gets the files of its state that are to be read, look_events its events.
look_want() {
  eval "l_dir=\$look_dir_$1 l_known=\$look_files_$1\$line_end l_newer=\$look_newer_$1\$line_end"
  l_files=$line_end$l_dir
  for f in record.json:record incarnation:number conversation:id; do
    if [ ! -e "$l_dir/${f%:*}" ]; then
      eval "look_${f#*:}_$1="
    else
      l_files=$l_files$line_end$l_dir/${f%:*}
      look_fresh "$l_dir/${f%:*}" || { eval "look_${f#*:}_$1=" && look_wanted=$look_wanted$line_end$l_dir/${f%:*}; }
    fi
  done
  for q_kind in processes exits; do
    f=$l_dir/process.
    [ $q_kind = processes ] || f=$l_dir/exit.
    l_read=
    look_fresh "$l_dir" || l_read=y
    l_many=
    for f in "$f"*; do
      [ -e "$f" ] || continue
      l_files=$l_files$line_end$f
      case $f in *.tmp) continue ;; esac
      l_many=$l_many$line_end$f
      look_fresh "$f" || l_read=y
    done
    [ -z "$l_read" ] || { eval "look_${q_kind}_$1=" && look_wanted=$look_wanted$l_many; }
  done
  for f in probe events; do [ ! -e "$l_dir/$f" ] || l_files=$l_files$line_end$l_dir/$f; done
  if [ ! -s "$l_dir/events" ]; then
    eval "look_event_$1="
  else
    look_fresh "$l_dir/events" || { eval "look_event_$1=" && look_events=$look_events$line_end$l_dir/events; }
  fi
  eval "look_listed_$1=\$l_files"
}

# look_read: what look_wanted names, by one program; by none where it is little, or where that program will not do.
look_read() {
  [ -n "$look_wanted" ] || return 0
  l_at=1
  case $look_wanted in *"$line_end"*"$line_end"*"$line_end"*"$line_end"*) look_lines head -n 1 && return ;; esac
  for l_i in $look_stale; do
    eval "l_dir=\$look_dir_$l_i"
    case $look_wanted in *"$line_end$l_dir/process."*) eval "look_processes_$l_i=" ;; esac
    case $look_wanted in *"$line_end$l_dir/exit."*) eval "look_exits_$l_i=" ;; esac
  done
  l_at=1
  IFS=$line_end
  set -f
  for f in $look_wanted; do
    l=
    # What cannot be read is there all the same.
    { IFS= read -r l <"$f"; } 2>/dev/null || [ -e "$f" ] || continue
    look_take "$f" "$l"
  done
  set +f
  unset IFS
}

# look_read_events: the last lines of look_events.
look_read_events() {
  [ -n "$look_events" ] || return 0
  l_at=1 look_wanted=$look_events
  look_lines tail -c 4096 && return
  l_at=1
  IFS=$line_end
  set -f
  for f in $look_events; do
    l=
    for l in $(tail -c 4096 "$f" 2>/dev/null </dev/null); do :; done
    look_take "$f" "$l"
  done
  set +f
  unset IFS
}

# look_read_all: everything that the stale ones say of themselves, so that few programs read many files.
look_read_all() {
  look_wanted= look_events=
  for l_i in $look_stale; do look_want "$l_i"; done
  look_read
  look_read_events
  look_wanted=
  for l_i in $look_stale; do
    eval "l_processes=\$look_processes_$l_i"
    l_pids= l_sure=y
    IFS=$line_end
    set -f
    for l in $l_processes; do
      unset IFS
      # shellcheck disable=SC2086
      set -- $l
      number "${1-}" || continue
      # Whether it is there comes before how it is: who ends in between is missed at the next look.
      # The dead have no program; nor have those whose program is nobody else's business.
      if [ -e "/proc/$1/exe" ]; then
        l_pids="$l_pids $1:${2-}"
        case $look_lives in *" $1:${2-} "*) ;; *) look_wanted=$look_wanted$line_end/proc/$1/stat ;; esac
      else
        [ ! -e "/proc/$1" ] || l_sure=
      fi
    done
    set +f
    unset IFS
    eval "look_pids_$l_i=\$l_pids look_sure_$l_i=\$l_sure"
  done
  case $look_wanted in *"$line_end"*"$line_end"*"$line_end"*) look_lines head -n 1 || : ;; esac
}

# look_probes NUMBER: l_probes becomes its probes with their paths as they are now; what they rest on is noted.
look_probes() {
  l_single= l_stores= l_names= l_probes=
  [ -r "$l_dir/probe" ] || return 0
  if ! look_fresh "$l_dir/probe"; then
    l_many=
    while IFS= read -r l; do l_many=$l_many$l$line_end; done <"$l_dir/probe"
    eval "look_probe_$1=\$l_many"
  fi
  eval "l_many=\$look_probe_$1"
  IFS=$line_end
  set -f
  for l in $l_many; do
    q_kind=${l%%"$tab"*}
    l=${l#*"$tab"}
    look_where "${l#*"$tab"}" || continue
    case $WHERE in *"$line_end"*) l_sure= ;; esac
    l_probes=$l_probes$line_end$q_kind$tab${l%%"$tab"*}$tab$WHERE
    case $q_kind in
    store) l_stores=$l_stores$line_end$WHERE ;;
    names) l_names=$l_names$line_end$WHERE ;;
    *) l_single=$l_single$line_end$WHERE ;;
    esac
  done
  set +f
  unset IFS
}

# look_probe NAME KIND KEY PATH: what the agent wanted to know at each look.
look_probe() {
  js "$3"
  k=$J
  case $2 in
  file | tail)
    [ -f "$4" ] && [ -r "$4" ] || return 0
    if [ "$2" = file ]; then d=$(head -c 4096 "$4" | base64); else d=$(tail -c 4096 "$4" | base64); fi
    IFS=$line_end
    # shellcheck disable=SC2086
    set -- "$1" "$2" "$3" "$4" $d
    l_name_of=$1
    shift 4
    IFS=
    d=$*
    unset IFS
    look_out fact "$l_name_of" "{\"key\":$k,\"data\":\"$d\"}"
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
        js "$f"
        look_sizes=$look_sizes$line_end$f
        look_sized=$look_sized$line_end"{\"key\":$k,\"path\":$J"
      fi
    done
    unset IFS
    ;;
  esac
}

# look_size NAME: look_sizes, files of the store of this session, by one program for all.
look_size() {
  [ -n "$look_sizes" ] || return 0
  if [ -z "$look_stat" ]; then
    look_stat='%s %Y' look_stat_flag=-c
    stat -c %s / >/dev/null 2>&1 || look_stat='%z %m' look_stat_flag=-f
  fi
  l_name_of=$1
  IFS=$line_end
  set -f
  # shellcheck disable=SC2086
  l_got=$(stat "$look_stat_flag" "$look_stat" $look_sizes 2>/dev/null </dev/null)
  # shellcheck disable=SC2086
  set -- $l_got
  l_n=$#
  # shellcheck disable=SC2086
  set -- $look_sizes
  l_some=
  [ $# -eq "$l_n" ] || l_some=y # a file is gone, or has a line's end in its name
  # shellcheck disable=SC2086
  [ -n "$l_some" ] || set -- $l_got
  for l in $look_sized; do
    if [ -n "$l_some" ]; then
      l_got=$(stat "$look_stat_flag" "$look_stat" "$1" 2>/dev/null) || l_got="$(wc -c <"$1") 0"
    else
      l_got=$1
    fi
    shift
    look_out store "$l_name_of" "$l,\"size\":${l_got% *},\"mtime\":${l_got#* }}"
  done
  set +f
  unset IFS
  look_sizes= look_sized=
}

# look_process NOTE...: one of the processes that a session noted. l_pid becomes the live one.
look_process() {
  q_pid=${1-} q_start=${2-} q_boot=${3-} q_inc=${4-} q_group=${5-} q_parent=${6-} q_pstart=${7-}
  number "$q_pid" || return 0
  # Half a note proves nothing: without a boot id nobody can tell, as the guard says too.
  number "$q_inc" || q_inc=0
  number "$q_group" || q_group=0
  case $BOOT:$look_lives in
  "$q_boot":*" $q_pid:$q_start "*) a=true l_pid=$q_pid ;;
  *)
    alive "$q_pid" "$q_start" "$q_boot"
    case $? in 0) a=true l_pid=$q_pid ;; 1) a=false && look_exit "$l_dir/exit.$q_inc" ;; *) a=null ;; esac
    ;;
  esac
  js "$q_start"; s=$J
  js "$q_boot"; b=$J
  look_out process "$l_name" \
    "{\"pid\":$q_pid,\"start\":$s,\"boot\":$b,\"incarnation\":$q_inc,\"group\":$q_group,\"alive\":$a}"
}

# look_session NUMBER: look_text_NUMBER becomes what is to be told of it.
look_session() {
  eval "l_dir=\$look_dir_$1 l_known=\$look_files_$1\$look_single_$1\$line_end l_newer=\$look_newer_$1\$line_end"
  eval "l_record=\$look_record_$1 l_inc=\$look_number_$1 l_id=\$look_id_$1 l_processes=\$look_processes_$1"
  eval "l_pids=\$look_pids_$1 l_sure=\$look_sure_$1 l_event=\$look_event_$1 l_facts=\$look_facts_$1"
  l_name=${l_dir##*/} l_pid= l_waited= look_text= look_count=0
  if [ -n "$l_record$l_inc" ] || [ -e "$l_dir/incarnation" ] || [ ! -d "$l_dir/turns" ]; then
    [ -z "$l_record" ] || look_out record "$l_name" "${l_record#r}"
    number "$l_inc" || l_inc=0
    look_out session "$l_name" "{\"incarnation\":$l_inc}"
    look_session_more "$1"
  else
    # Where a group chat asked somebody who is no session here there are turns alone.
    l_single= l_stores= l_names= TOLD= l_facts=
  fi
  eval "look_text_$1=\$look_text look_count_$1=\$look_count look_files_$1=\$look_listed_$1 look_facts_$1=\$l_facts"
  eval "look_single_$1=\$l_single look_stores_$1=\$l_stores look_names_$1=\$l_names"
  eval "look_pids_$1=\$l_pids look_sure_$1=\$l_sure look_told_$1=\$TOLD look_newer_$1="
}

look_session_more() {
  IFS=$line_end
  set -f
  for l in $l_processes; do
    unset IFS
    # shellcheck disable=SC2086
    look_process $l
  done
  set +f
  unset IFS
  eval "l_many=\$look_exits_$1"
  if [ -n "$l_waited" ]; then
    l_many=
    for f in "$l_dir"/exit.*; do
      case $f in *.tmp) continue ;; esac
      { IFS= read -r l <"$f"; } 2>/dev/null && l_many=$l_many$l$line_end
    done
    eval "look_exits_$1=\$l_many"
  fi
  IFS=$line_end
  set -f
  for l in $l_many; do look_out exit "$l_name" "$l"; done
  set +f
  unset IFS
  if [ -e "$l_dir/terminal" ]; then
    l_sure= # it asks the user's own tmux server
    [ -z "$l_pid" ] || look_adopted "$l_name" "$l_dir/terminal"
  fi
  [ -z "$l_event" ] || look_out event "$l_name" "$l_event"
  look_probes "$1"
  TOLD= NEWER=
  [ -z "$look_glances" ] || look_told_of
  look_facts=
  IFS=$line_end
  set -f
  for l in $l_probes; do
    set +f
    unset IFS
    q_kind=${l%%"$tab"*}
    l=${l#*"$tab"}
    look_probe_again "$l_name" "$q_kind" "${l%%"$tab"*}" "${l#*"$tab"}"
  done
  set +f
  unset IFS
  l_facts=$look_facts
  look_size "$l_name"
}

# look_probe_again NAME KIND KEY PATH: as look_probe; a file that is as it was (l_facts) is not read.
look_probe_again() {
  case $2 in
  file | tail)
    [ -f "$4" ] || return 0
    if look_fresh "$4"; then
      IFS=$line_end
      set -f
      for l in $l_facts; do
        case $l in "$2$tab$3$tab$4$tab"*)
          set +f
          unset IFS
          look_facts=$look_facts$line_end$l
          look_out fact "$1" "${l##*"$tab"}"
          return
          ;;
        esac
      done
      set +f
      unset IFS
    fi
    l_before=$look_count
    look_probe "$1" "$2" "$3" "$4"
    [ "$look_count" = "$l_before" ] || look_facts=$look_facts$line_end$2$tab$3$tab$4$tab"{\"key\":$k,\"data\":\"$d\"}"
    ;;
  *) look_probe "$1" "$2" "$3" "$4" ;;
  esac
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
  l_n=0 l_waited=y
  while [ ! -e "$1" ] && [ "$l_n" -lt 10 ] && alive "$q_parent" "$q_pstart" "$q_boot"; do
    sleep 0.1 2>/dev/null || sleep 1
    l_n=$((l_n + 1))
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

# look_locks: look_held becomes the names of the sessions that an operation is at work on. See guard.sh.
look_locks() {
  look_held=' ' l_lock= l_top=0
  for f in "$look_state"/locks/session-* :; do
    case ${f##*/} in *.*.* | *.*[!0-9]* | *.) continue ;; session-*.*) ;; :) ;; *) continue ;; esac
    if [ "${f%.*}" != "$l_lock" ]; then
      [ "$l_top" -eq 0 ] || ! look_holder "$l_lock.$l_top" || look_held="$look_held${l_lock##*/session-} "
      l_lock=${f%.*} l_top=0
    fi
    [ "$f" = : ] || [ "${f##*.}" -le "$l_top" ] || l_top=${f##*.}
  done
}

# look_holder FILE: 0 when a live process (or one that cannot be proven dead) holds that lock.
look_holder() {
  { read -r k_pid k_start k_boot <"$1"; } 2>/dev/null || return 1
  [ "$k_pid" = free ] && return 1
  alive "$k_pid" "$k_start" "$k_boot"
  [ $? -ne 1 ]
}

# look_real DIRECTORY: FOUND becomes its path without links.
look_real() {
  FOUND= l_here=$PWD
  if cd -P -- "$1" >/dev/null 2>&1; then
    FOUND=$PWD
    cd -- "$l_here" >/dev/null 2>&1 || cd /
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
  esac
  look_out check "$1" "{\"value\":$c,\"found\":$J}"
}

# look_whole [KIND VALUE]...: everything, sessions included that are told again from what is remembered.
look_whole() {
  look_locks
  [ "$look_held" = ' ' ] || look_host_sure= # a lock is given back without a trace
  look_walk
  look_read_all
  look_sizes= look_sized=
  for l_i in $look_stale; do look_session "$l_i"; done
  look_count=0 look_text=
  look_host
  look_panes
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
  l_i=0
  while [ "$l_i" -lt "$look_total" ]; do
    l_i=$((l_i + 1))
    eval "look_text=\$look_text\$look_text_$l_i look_count=\$((look_count + look_count_$l_i)) l_name=\${look_dir_$l_i##*/}"
    case $look_held in *" $l_name "*) look_out lock "$l_name" '{"held":true}' ;; esac
    look_flush 16000
  done
  for d in "$look_state"/forgotten/*; do
    [ ! -d "$d" ] || look_forgotten "$d"
  done
  while [ $# -ge 2 ]; do
    look_check "$1" "$2"
    shift 2
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
  case " $* " in *' digest '* | *' version '*) look_once=y ;; esac
  if [ -n "$look_once" ] || [ -z "$look_glances" ]; then
    look_ask
  else
    look_glance "$look_fleet" "$@" && return
  fi
  if [ -n "$look_once" ]; then
    # In a subshell, since what it reads of sessions is to be forgotten.
    # shellcheck disable=SC2030
    (look_kept= look_stale= look_lives=' ' && look_whole "$@") </dev/null
  else
    # shellcheck disable=SC2031
    [ -n "$look_kept" ] || look_stale= look_lives=' '
    look_whole "$@" </dev/null
    [ -z "$look_glances" ] || look_mark
  fi
}
