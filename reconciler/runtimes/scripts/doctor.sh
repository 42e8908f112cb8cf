# What a host is like, for people: one line `fact TAB key TAB value` each. Changes nothing.
#
#   reconciler_doctor NONCE [login FILE | text FILE WORD | trusts FILE KIND]...
#
# `login`: whether the file is there and not empty; `text`: whether it holds the word; `trusts`: the directories that an
# agent's own list trusts. Names of variables in the login environment are told, never their values.

fact() {
  printf 'fact\t%s\t%s\n' "$1" "$(printf '%s' "$2" | tr -d '\000-\037\177' | cut -c 1-1000)"
}

# trusts FILE KIND: the directories that the list in FILE trusts, and nothing else of what stands in it. KIND is
# `projects` (JSON, projects.DIR.hasTrustDialogAccepted), `folders` (JSON, DIR: "TRUST_FOLDER" or "TRUST_PARENT") or
# `toml` ([projects."DIR"] with trust_level = "trusted").
trusts() {
  [ -r "$1" ] || return 0
  if [ "$2" = toml ]; then
    head -c 4000000 "$1" | awk '
      /^[ \t]*\[/ { d = ""; t = ($0 ~ /^[ \t]*\[projects\][ \t]*$/) }
      /^[ \t]*\[projects\.["\047]/ { d = $0; sub(/^[^"\047]*["\047]/, "", d); sub(/["\047][ \t]*\].*$/, "", d) }
      t && /^[ \t]*["\047].*trust_level[ \t]*=[ \t]*["\047]trusted["\047]/ {
        d = $0; sub(/^[ \t]*["\047]/, "", d); sub(/["\047].*$/, "", d); print d; d = ""
      }
      d != "" && /^[ \t]*trust_level[ \t]*=[ \t]*["\047]trusted["\047]/ { print d }'
  else
    # Between two quotes there is a string, or what stands around one: linear, whatever the length.
    head -c 4000000 "$1" | awk -v kind="$2" '
      function told(value) {
        if (kind == "projects") {
          if (depth == 3 && key[1] == "projects" && key[3] == "hasTrustDialogAccepted" && value == "true") print key[2]
        } else if (depth == 1 && value == "TRUST_FOLDER") {
          print key[1]
        } else if (depth == 1 && value == "TRUST_PARENT") {
          value = key[1]; sub(/\/[^\/]*$/, "", value); print (value == "" ? "/" : value)
        }
      }
      BEGIN { RS = "\"" }
      inside {
        text = text $0
        n = 0
        for (i = length($0); i > 0 && substr($0, i, 1) == "\\"; i--) n++
        if (n % 2) { text = text "\""; next }
        inside = 0
        if (value) told(text)
        value = 0
        next
      }
      {
        for (i = 1; i <= length($0); i++) {
          c = substr($0, i, 1)
          if (c == ":") { key[depth] = text; value = 1; if (substr($0, i + 1) ~ /^[ \t\r\n]*true/) told("true") }
          else if (c == "{" || c == "[") { depth++; key[depth] = ""; value = 0 }
          else if (c == "}" || c == "]") { depth--; value = 0 }
          else if (c == ",") value = 0
        }
        inside = 1
        text = ""
      }'
  fi | tr -d '\000-\011\013-\037\177' | head -n 500 | while IFS= read -r d_directory; do
    printf 'fact\ttrusts %s\t%s\n' "$1" "$d_directory"
  done
}

# limits: the least that the control groups of this login allow it, in kB of memory and in tasks.
limits() {
  d_group=$(sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null)
  d_root=/sys/fs/cgroup
  d_memory= d_tasks=
  # The first version of control groups: one file tells what holds along the whole way.
  d_old=$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup 2>/dev/null)
  if [ -n "$d_old" ]; then
    d_said=$(sed -n 's/^hierarchical_memory_limit //p' "$d_root/memory$d_old/memory.stat" 2>/dev/null)
    case $d_said in '' | *[!0-9]*) ;; *) d_memory=$((d_said / 1024)) ;; esac
  fi
  while [ -n "$d_group" ]; do
    for d_file in memory.max pids.max; do
      d_said=
      [ ! -r "$d_root$d_group/$d_file" ] || read -r d_said <"$d_root$d_group/$d_file"
      case $d_said in '' | *[!0-9]*) continue ;; esac
      if [ $d_file = memory.max ]; then
        d_said=$((d_said / 1024))
        [ -n "$d_memory" ] && [ "$d_memory" -le "$d_said" ] || d_memory=$d_said
      else
        [ -n "$d_tasks" ] && [ "$d_tasks" -le "$d_said" ] || d_tasks=$d_said
      fi
    done
    d_group=${d_group%/*}
  done
  [ -z "$d_memory" ] || fact memory_limit "$d_memory"
  [ -z "$d_tasks" ] || fact tasks_limit "$d_tasks"
}

reconciler_doctor() {
  printf 'doctor\t%s\n' "$1"
  shift
  d_user=$(id -un 2>/dev/null)
  fact uid "$(id -u)"
  fact arch "$(uname -m)"
  fact shell "${SHELL:-}"
  for d_program in git tmux; do
    d_flag=--version
    [ "$d_program" = git ] || d_flag=-V
    command -v "$d_program" >/dev/null 2>&1 && fact "$d_program" "$("$d_program" "$d_flag" 2>/dev/null </dev/null)"
  done
  for d_program in apt-get dnf yum zypper pacman apk brew pkg npm sudo; do
    command -v "$d_program" >/dev/null 2>&1 && fact has "$d_program"
  done
  fact disk "$(df -Pk "$HOME" 2>/dev/null </dev/null | tail -n 1 | tr -s ' ' | cut -d ' ' -f 4)"
  if [ -d /run/systemd/system ]; then
    d_linger=no
    [ ! -e "/var/lib/systemd/linger/$d_user" ] || d_linger=yes
    fact linger "$d_linger"
    d_bus=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/bus
    if [ -S "$d_bus" ] && command -v systemd-run >/dev/null 2>&1; then fact bus yes; else fact bus no; fi
  fi
  [ ! -r /proc/meminfo ] || fact memory "$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
  limits
  # Some file systems count no inodes: none in all, none free.
  [ ! -r /proc/meminfo ] || fact inodes "$(df -Pi "$HOME" 2>/dev/null </dev/null | awk 'END { if ($2 > 0) print $4 }')"
  fact now "$(date +%s)"
  for d_name in $("${SHELL:-/bin/sh}" -lc env 2>/dev/null </dev/null | sed -n 's/^\([A-Z][A-Z0-9_]*\)=..*/\1/p'); do
    case $d_name in *KEY | *TOKEN) fact variable "$d_name" ;; esac
  done
  while [ $# -ge 2 ]; do
    case $1 in
    login) [ ! -s "$2" ] || fact login "$2" ;;
    text)
      ! grep -q -e "$3" "$2" 2>/dev/null || fact text "$2"
      shift
      ;;
    trusts)
      trusts "$2" "$3"
      shift
      ;;
    esac
    shift 2
  done
  printf 'end\t\n'
}
