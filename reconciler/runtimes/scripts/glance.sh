# reconciler: whether anything that a look tells has changed since the last one. Comes after look.sh; forks nothing, but
# to ask tmux where nobody else does. What cannot be told for certain counts as changed.
#
# Times of files are compared with that of a file of our own, the mark, by `-nt`. A mark counts only when it was
# SETTLED seconds old as a look began: so whatever changed during or after that look is newer by more than the
# coarsest clock of a file system, and what changed shortly before is only looked at once more. Two marks take turns.
# Names (what a pattern matches, which file is on the PATH, whether a process is there) are compared as text.
# Without /proc there is no clock and no cheap proof that a process lives: each look is a full one then.
# `-nt` is in POSIX since 2024, and was in all shells long before. One that lacks it fails, and looks at all.
# shellcheck disable=SC3013

SETTLED=3
look_glances=y
look_first=y look_said= look_key= look_told= look_told_panes= look_begun=
look_marks= look_newest= look_newest_at= look_reference=

# look_clock: UP becomes the seconds since the boot.
look_clock() {
  UP=
  [ ! -r /proc/uptime ] || read -r UP u_rest </proc/uptime
  UP=${UP%%.*}
  number "$UP" || { UP= && return 1; }
}

# look_glance FLEET [KIND VALUE]...: 0 where the answer `look_since` still holds, and that was said. Else 1; what the
# look that follows rests on is remembered then, and look_stale which sessions it has to read again where it may repeat
# the others (look_kept). All is compared with the mark of the last look first, and only then there may be a newer one.
look_glance() {
  look_kept= look_host_kept= look_stale=' ' look_lives=' '
  look_clock
  look_ask
  if [ -n "$UP" ] && [ -n "$look_since" ] && [ "$look_since" = "$look_said" ] && [ "$*" = "$look_key" ] && look_in_time
  then
    look_kept=y
    l_same=y
    { [ -n "$look_elsewhere" ] || [ "$look_answered$look_list" = "$look_told_panes" ]; } || l_same=
    if look_host_still "$@"; then look_host_kept=y; else l_same=; fi
    l_i=0
    while [ "$l_i" -lt "$look_total" ]; do
      l_i=$((l_i + 1))
      look_still "$l_i" || look_stale="$look_stale$l_i " l_same=
    done
    if [ -n "$l_same" ]; then
      printf 'same\t%s\t%s\n' "$look_nonce" "$((UP - look_begun))"
      return 0
    fi
  fi
  look_said= look_begun=$UP
  [ -n "$UP" ] || return 1
  if [ -n "$look_newest" ] && [ "$((UP - look_newest_at))" -ge "$SETTLED" ]; then look_reference=$look_newest; fi
  if [ -z "$look_host_kept" ]; then
    look_list
    look_host_told "$@" || look_host_sure=
    look_told=$TOLD
  fi
  look_told_panes=$look_answered$look_list look_key=$*
  [ -z "$look_reference" ] || look_said=$look_nonce
  return 1
}

# look_mark: after a look: the next one's mark, when the present one has come into use. Who looks once leaves none.
look_mark() {
  l_first=$look_first look_first=
  [ -z "$l_first" ] && [ -n "$look_begun" ] && [ -d "$look_state" ] && look_clock || return 0
  case $look_reference in "$look_newest") ;; *) return 0 ;; esac
  if [ -z "$look_marks" ]; then
    (umask 077 && mkdir -p "$look_state/looks") 2>/dev/null || return 0
    look_marks=$look_state/looks/$look_nonce
    trap 'rm -f "$look_marks".[abn]' EXIT
  fi
  case $look_reference in *.a) l_next=$look_marks.b ;; *) l_next=$look_marks.a ;; esac
  if { echo >"$l_next"; } 2>/dev/null; then
    look_newest=$l_next look_newest_at=$UP
  else
    look_newest= look_reference= look_said=
  fi
}

# look_in_time: a file that is written now is newer than the mark; else the clock was set back, or the disk is full.
look_in_time() {
  [ -n "$look_reference" ] && echo >"$look_marks.n" && [ -f "$look_reference" ] &&
    [ "$look_marks.n" -nt "$look_reference" ]
}

# look_list: which files a look rests on beside those of sessions.
look_list() {
  # What may come with an old time, or go, is looked for as well. In a directory of ours its own time tells of that.
  look_host_sure=y look_host_files= look_host_pids=
  for d in "$look_state"/forgotten/*; do
    [ -d "$d" ] || continue
    look_host_files=$look_host_files$line_end$d$line_end$d/conversation
    for f in "$d"/process.*; do
      { read -r q_pid q_rest <"$f"; } 2>/dev/null && number "$q_pid" || continue
      look_host_files=$look_host_files$line_end$f
      if [ -e "/proc/$q_pid/exe" ]; then
        look_host_pids="$look_host_pids $q_pid:"
      else
        [ ! -e "/proc/$q_pid" ] || look_host_sure=
      fi
    done
  done
}

# look_newer: NEWER gets those of l_files that are newer than the mark, and the processes of l_pids (PID:START); the
# others of them are proven to live.
look_newer() {
  IFS=$line_end
  set -f
  for f in $l_files; do
    [ ! "$f" -nt "$look_reference" ] || NEWER=$NEWER$line_end$f
  done
  unset IFS
  # The kernel makes the entry of a process once: of another one with the same number it is newer.
  for l in $l_pids; do
    p=/proc/${l%%:*}
    if [ ! -e "$p/exe" ] || [ "$p" -nt "$look_reference" ]; then NEWER=$NEWER$line_end$p; else l_here="$l_here$l "; fi
  done
  set +f
}

# look_told_of: TOLD gets what tells which of l_single, l_stores and l_names are there, NEWER what of it is newer.
look_told_of() {
  IFS=$line_end
  set -f
  for f in $l_single; do
    if [ ! -e "$f" ]; then TOLD=$TOLD:; else
      TOLD=$TOLD.
      [ -z "$look_reference" ] || [ ! "$f" -nt "$look_reference" ] || NEWER=$NEWER$line_end$f
    fi
  done
  set +f
  for f in $l_stores; do
    TOLD=$TOLD$line_end$f
    [ -z "$look_reference" ] || [ ! "$f" -nt "$look_reference" ] || NEWER=$NEWER$line_end$f
  done
  for f in $l_names; do TOLD=$TOLD$line_end$f; done
  unset IFS
}

# look_still NUMBER: what was told of that session holds. look_lives gets its processes that are proven to live.
look_still() {
  eval "l_files=\$look_files_$1 l_pids=\$look_pids_$1 l_single=\$look_single_$1 l_stores=\$look_stores_$1"
  eval "l_names=\$look_names_$1 l_told=\$look_told_$1 l_sure=\$look_sure_$1"
  NEWER= TOLD= l_here=
  look_newer
  [ -z "$l_single$l_stores$l_names" ] || look_told_of
  eval "look_newer_$1=\$NEWER"
  [ -n "$l_sure" ] && [ -z "$NEWER" ] && [ "$TOLD" = "$l_told" ] && return
  look_lives="$look_lives$l_here"
  return 1
}

# look_host_still FLEET [KIND VALUE]...: the same of what is told beside sessions.
look_host_still() {
  l_files=$look_host_files l_pids=$look_host_pids
  NEWER=
  look_newer
  l_newer=$NEWER
  look_host_told "$@" && [ -n "$look_host_sure" ] && [ -z "$NEWER$l_newer" ] && [ "$TOLD" = "$look_told" ]
}

# look_host_told FLEET [KIND VALUE]...: TOLD becomes a text that is another one when something is not as it was, NEWER
# is not empty when something is newer than the mark. 1 where nobody can tell.
look_host_told() {
  shift
  NEWER= TOLD=
  [ ! -S "$look_state/tmux" ] || TOLD=tmux
  l_single="$look_state/fence$line_end$look_state/local$line_end$look_state/sessions$line_end$look_state/forgotten"
  l_stores="$look_state/locks/session-*" l_names=
  look_told_of
  if [ -z "$look_tmux" ]; then
    look_file tmux
    TOLD=$TOLD$line_end$FOUND
  fi
  while [ $# -ge 2 ]; do
    expand_home "$2"
    case $1 in
    command)
      look_file "$EXPANDED"
      [ -n "$FOUND" ] || return 1 # the interactive shell of the login may know it tomorrow
      TOLD=$TOLD$line_end$FOUND
      ;;
    directory)
      look_real "$EXPANDED"
      TOLD=$TOLD$line_end$FOUND
      ;;
    *) return 1 ;;
    esac
    shift 2
  done
}

# -- what is remembered of sessions, for sessions.sh ------------------------------------------------------------------------

# look_fresh FILE: it was read before (l_known) and is not newer than the mark was (l_newer).
look_fresh() {
  case $l_known in *"$line_end$1$line_end"*) ;; *) return 1 ;; esac
  case $l_newer in *"$line_end$1$line_end"*) return 1 ;; esac
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
        case $l in
        "$2$tab$3$tab$4$tab"*"$tab"*) ;;
        "$2$tab$3$tab$4$tab"*)
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

# look_stored FILE: l_size becomes its size and time as they were (l_sizes), where it is as it was.
look_stored() {
  l_size=
  case $l_newer in *"$line_end$1$line_end"*) return ;; esac
  IFS=$line_end
  set -f
  for l in $l_sizes; do
    case $l in "$1$tab"*) l_size=${l##*"$tab"} && l=${l%"$tab"*} && [ "$l" = "$1" ] && break ;; esac
    l_size=
  done
  set +f
  IFS=
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
