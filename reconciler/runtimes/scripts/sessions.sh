# reconciler: what a look tells of sessions. Comes with look.sh, which prints it.
#
# Sessions have numbers, in the order of their names; look_dir_3 is the directory of the third. What is remembered of one
# (look_text_3, what it printed, and what that rests on) is used again only as glance.sh allows.

# Whoever looks once remembers nothing; glance.sh tells how to.
look_fresh() { return 1; }
look_stored() { l_size=; }
look_probe_again() { look_probe "$@"; }

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
        eval "look_dir_$l_i=\$d look_files_$l_i= look_single_$l_i= look_newer_$l_i= look_facts_$l_i= look_event_$l_i= look_stored_$l_i="
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
  case $1 in */locks/session-*) [ "$2" = free ] || look_busy="$look_busy $1"; return ;; esac
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
  eval "l_dir=\$look_dir_$1 l_known=\$look_files_$1\$line_end l_newer=\$look_newer_$1\$line_end l_names=\$look_kinds_$1"
  l_read=
  if ! look_fresh "$l_dir"; then
    l_names= l_read=process.exit.
    for f in "$l_dir"/*; do
      case ${f##*/} in
      record.json | incarnation | conversation | events | probe | process.* | exit.*)
        l_names=$l_names$line_end${f##*/}
        ;;
      esac
    done
    eval "look_kinds_$1=\$l_names"
    # What is not there any more says nothing any more.
    for f in record.json:record incarnation:number conversation:id events:event; do
      case $l_names$line_end in *"$line_end${f%:*}$line_end"*) ;; *) eval "look_${f#*:}_$1=" ;; esac
    done
  fi
  l_files=$line_end$l_dir
  IFS=$line_end
  set -f
  for f in $l_names; do
    l_files=$l_files$line_end$l_dir/$f
    case $f in
    *.tmp | probe) ;;
    process.* | exit.*) look_fresh "$l_dir/$f" || l_read=$l_read${f%%.*}. ;;
    events)
      if [ ! -s "$l_dir/$f" ]; then
        eval "look_event_$1="
      else
        look_fresh "$l_dir/$f" || { eval "look_event_$1=" && look_events=$look_events$line_end$l_dir/$f; }
      fi
      ;;
    *) look_fresh "$l_dir/$f" || { look_wanted=$look_wanted$line_end$l_dir/$f && look_records=$((look_records + 1)); } ;;
    esac
  done
  # One that is not as it was is read with all others of its kind.
  case $l_read in *process.*) eval "look_processes_$1=" ;; esac
  case $l_read in *exit.*) eval "look_exits_$1=" ;; esac
  for f in $l_names; do
    case $f:$l_read in
    *.tmp:*) ;;
    process.*:*process.* | exit.*:*exit.*) look_wanted=$look_wanted$line_end$l_dir/$f ;;
    esac
  done
  set +f
  unset IFS
  eval "look_listed_$1=\$l_files"
}

# look_read: what look_wanted names, by one program where that is much. Most shells read byte by byte, but the start of a
# program costs as much as some thousand bytes.
look_read() {
  [ -n "$look_wanted" ] || return 0
  l_at=1
  [ "$look_records" -le 30 ] || { look_lines head -n 1 && return; }
  for l_i in $look_stale; do
    # What has been taken until then is taken anew.
    eval "l_dir=\$look_dir_$l_i"
    case $look_wanted in *"$line_end$l_dir/process."*) eval "look_processes_$l_i=" ;; esac
    case $look_wanted in *"$line_end$l_dir/exit."*) eval "look_exits_$l_i=" ;; esac
  done
  look_busy=
  l_at=1
  IFS=$line_end
  set -f
  for f in $look_wanted; do
    l=
    # What cannot be read is there all the same.
    IFS= read -r l <"$f"
    look_take "$f" "$l"
    # What cannot be read is there all the same; what is gone is not.
    case $f in */record.json) [ -e "$f" ] || eval "look_record_$l_at=" ;; esac
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
  look_events= look_records=0
  for l_i in $look_stale; do look_want "$l_i"; done
  look_read
  look_holders
  [ "$look_held" = ' ' ] || look_host_sure= # a lock is given back without a trace
  look_read_events
  look_wanted= l_many=0
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
        case $look_lives in *" $1:${2-} "*) ;; *) look_wanted=$look_wanted$line_end/proc/$1/stat l_many=$((l_many + 1)) ;; esac
      else
        [ ! -e "/proc/$1" ] || l_sure=
      fi
    done
    set +f
    unset IFS
    eval "look_pids_$l_i=\$l_pids look_sure_$l_i=\$l_sure"
  done
  [ "$l_many" -le 20 ] || look_lines head -n 1 || :
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
  eval "l_sizes=\$look_stored_$1"
  l_name=${l_dir##*/} l_pid= l_waited= look_text= look_count=0 look_at=$1
  if [ -n "$l_record$l_inc" ] || [ -e "$l_dir/incarnation" ] || [ ! -d "$l_dir/turns" ]; then
    [ -z "$l_record" ] || look_out record "$l_name" "${l_record#r}"
    number "$l_inc" || l_inc=0
    look_out session "$l_name" "{\"incarnation\":$l_inc}"
    look_session_more "$1"
  else
    # Where a group chat asked somebody who is no session here there are turns alone.
    l_single= l_stores= l_names= TOLD= l_facts=
  fi
  eval "look_text_$1=\$look_text look_count_$1=\$look_count look_stored_$1= look_files_$1=\$look_listed_$1 look_facts_$1=\$l_facts"
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

# look_exit FILE: an agent has ended, and its wrapper (q_parent) notes how, within milliseconds. Whoever looked in
# between would take a task that has just been completed for one that is lost.
look_exit() {
  l_n=0 l_waited=y
  while [ ! -e "$1" ] && [ "$l_n" -lt 10 ] && alive "$q_parent" "$q_pstart" "$q_boot"; do
    sleep 0.1 2>/dev/null || sleep 1
    l_n=$((l_n + 1))
  done
}
