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
line_end='
'
look_first=y look_said= look_key= look_told= look_told_panes= look_begun=
look_marks= look_newest= look_newest_at= look_reference=

# look_clock: UP becomes the seconds since the boot.
look_clock() {
  UP=
  { read -r UP u_rest </proc/uptime; } 2>/dev/null
  UP=${UP%%.*}
  number "$UP"
}

# look_glance FLEET [KIND VALUE]...: 0 where the answer `look_since` still holds, and that was said. Else 1; what the
# look that follows rests on is remembered then.
look_glance() {
  look_ask_first=y
  if [ -n "$look_since" ] && [ "$look_since" = "$look_said" ] && [ "$*" = "$look_key" ] && look_clock; then
    look_ask
    look_ask_first=
    if { [ -n "$look_elsewhere" ] || [ "$look_answered$look_list" = "$look_told_panes" ]; } &&
      look_in_time && look_tell "$@" && [ -z "$NEWER" ] && [ "$TOLD" = "$look_told" ]; then
      printf 'same\t%s\t%s\n' "$look_nonce" "$((UP - look_begun))"
      return 0
    fi
  fi
  look_said= look_begun=
  [ -z "$look_ask_first" ] || look_ask
  look_clock || return 1
  look_begun=$UP
  if [ -n "$look_newest" ] && [ "$((UP - look_newest_at))" -ge "$SETTLED" ]; then look_reference=$look_newest; fi
  look_list && look_tell "$@" || return 1
  [ -n "$look_reference" ] || return 1
  look_told=$TOLD look_told_panes=$look_answered$look_list look_key=$* look_said=$look_nonce
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
  { echo >"$look_marks.n"; } 2>/dev/null && [ -f "$look_reference" ] && [ "$look_marks.n" -nt "$look_reference" ]
}

# look_list: which files, patterns and processes a look rests on. 1 where it rests on something else as well.
look_list() {
  # What may come with an old time, or go, is looked for as well. In a directory of ours its own time tells of that.
  look_single="$look_state/fence$line_end$look_state/local$line_end$look_state/sessions$line_end$look_state/forgotten"
  look_stores="$look_state/locks/session-*"
  look_files= look_names= look_pids=
  for d in "$look_state"/sessions/*; do
    if [ -L "$d" ] || [ ! -d "$d" ]; then continue; fi
    # Of an adopted one it asks the user's own tmux server; a lock that is held is given back without a trace.
    [ ! -e "$d/terminal" ] && ! lock_holder "$look_state/locks/session-${d##*/}" || return 1
    look_list_session "$d" || return 1
  done
  for d in "$look_state"/forgotten/*; do
    if [ -d "$d" ]; then
      look_files=$look_files$line_end$d$line_end$d/conversation
      look_list_processes "$d" || return 1
    fi
  done
}

# look_list_processes DIRECTORY: those noted there; l_pid becomes the live one. 1 where one is there and says nothing.
look_list_processes() {
  l_pid=
  for f in "$1"/process.*; do
    { read -r q_pid q_start q_boot q_rest <"$f"; } 2>/dev/null && number "$q_pid" || continue
    look_files=$look_files$line_end$f
    # The dead have no program; nor have those whose program is nobody else's business.
    if [ -e "/proc/$q_pid/exe" ]; then
      look_pids="$look_pids $q_pid"
      alive "$q_pid" "$q_start" "$q_boot" && l_pid=$q_pid
    else
      [ ! -e "/proc/$q_pid" ] || return 1
    fi
  done
}

look_list_session() {
  look_files=$look_files$line_end$1
  for f in "$1/record.json" "$1/incarnation" "$1/conversation" "$1/probe" "$1/events" "$1"/exit.*; do
    [ ! -e "$f" ] || look_files=$look_files$line_end$f
  done
  look_list_processes "$1" || return 1
  [ -r "$1/probe" ] || return 0
  while IFS=$tab read -r q_kind q_key q_path; do
    look_where "$1" "$q_path" || continue
    case $WHERE in *"$line_end"*) return 1 ;; esac
    case $q_kind in
    store) look_stores=$look_stores$line_end$WHERE ;;
    names) look_names=$look_names$line_end$WHERE ;;
    *) look_single=$look_single$line_end$WHERE ;;
    esac
  done <"$1/probe"
}

# look_tell FLEET [KIND VALUE]...: TOLD becomes a text that is another one when something is not as it was, NEWER is not
# empty when a file is newer than the mark, or a process. 1 where nobody can tell.
look_tell() {
  shift
  NEWER= TOLD=
  [ ! -S "$look_state/tmux" ] || TOLD=tmux
  l_ifs=$IFS
  IFS=$line_end
  set -f
  for f in $look_files; do
    [ ! "$f" -nt "$look_reference" ] || NEWER=$f
  done
  for f in $look_single; do
    if [ ! -e "$f" ]; then TOLD=$TOLD:; elif [ "$f" -nt "$look_reference" ]; then NEWER=$f; else TOLD=$TOLD.; fi
  done
  set +f
  for f in $look_stores; do
    TOLD=$TOLD$line_end$f
    [ ! "$f" -nt "$look_reference" ] || NEWER=$f
  done
  for f in $look_names; do TOLD=$TOLD$line_end$f; done
  IFS=$l_ifs
  # The kernel makes the entry of a process once: of another one with the same number it is newer.
  for p in $look_pids; do
    if [ ! -e "/proc/$p/exe" ]; then NEWER=$p; elif [ "/proc/$p" -nt "$look_reference" ]; then NEWER=$p; fi
  done
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
      l_here=$PWD
      if cd -P -- "$EXPANDED" >/dev/null 2>&1; then
        TOLD=$TOLD$line_end$PWD
        cd -- "$l_here" >/dev/null 2>&1 || return 1
      else
        TOLD=$TOLD$line_end
      fi
      ;;
    *) return 1 ;;
    esac
    shift 2
  done
}
