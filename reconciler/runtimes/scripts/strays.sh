# Agents that run on this host, whoever started them. Changes nothing. Comes after common.sh and look.sh.

# look_out KIND NAME TEXT: at once, since it is called in pipes.
look_out() { printf '%s\t%s\t%s\n' "$1" "$2" "$3"; }

# strays NONCE: what sessions of any fleet own (`owned PID FLEET/sessions/NAME`), all processes, all panes of tmux
# servers of this user; between a first and a last line with the nonce.
strays() {
  printf 'begin\t%s\n' "$1"
  s_base=${XDG_STATE_HOME:-$HOME/.local/state}/reconciler
  for d in "$s_base"/*/sessions/* "$s_base"/*/sessions/*/turns/* "$s_base"/*/forgotten/*; do
    [ ! -L "$d" ] || continue
    for f in "$d"/process.*; do
      { read -r q_pid q_start q_boot q_rest <"$f"; } 2>/dev/null && number "$q_pid" || continue
      alive "$q_pid" "$q_start" "$q_boot"
      [ $? -eq 1 ] || printf 'owned\t%s\t%s\n' "$q_pid" "${d#"$s_base"/}"
    done
  done
  {
    s_all=$(ps -A -o pid= -o ppid= -o etime= -o args= 2>/dev/null)
    printf '%s\n' "$s_all" | sed 's/^/process /'
    {
      for f in "${TMUX_TMPDIR:-/tmp}/tmux-$(id -u)"/* "$s_base"/*/tmux; do printf '%s\n' "$f"; done
      printf '%s\n' "$s_all" | sed -n 's/.*tmux.* -S *\(\/[^ ]*\).*/\1/p'
    } | sort -u | while IFS= read -r f; do
      case $f in *'#'*) continue ;; esac
      [ -S "$f" ] && [ -O "$f" ] || continue
      TMUX='' bounded 5 tmux -S "$f" list-panes -a \
        -F "pane$tab#{pane_pid}$tab$f$tab#{pane_id}$tab#{window_index}.#{pane_index}$tab#{session_name}$tab#{pane_current_path}" 2>/dev/null
    done
  } | tr -d '\000-\010\013-\037\177'
  printf 'end\t%s\n' "$1"
}

# own PID: whether it is a process of this user; root, who may signal everybody's, owns root's.
own() {
  if [ -d /proc/self ]; then [ -O "/proc/$1" ]; else kill -0 "$1" 2>/dev/null; fi
}

# work_of PID: CWD becomes its working directory.
work_of() {
  if [ -d /proc/self ]; then CWD=$(readlink "/proc/$1/cwd" 2>/dev/null); else
    CWD=$(lsof -a -p "$1" -d cwd -Fn 2>/dev/null </dev/null | sed -n 's/^n//p')
  fi
}

# taken_from PID NAME...: in a subshell: HOME and these variables become what that process has, where it can be told.
taken_from() {
  t_pid=$1
  shift
  [ -r "/proc/$t_pid/environ" ] || return 0
  for v in HOME "$@"; do
    t_value=$(tr '\000\n' '\n ' <"/proc/$t_pid/environ" 2>/dev/null | sed -n "s/^$v=//p" | head -n 1)
    [ -z "$t_value" ] || export "$v=$t_value"
  done
}

# stray PID PROBES NAME...: what its agent's probes (a function that prints them) find, with these variables of its
# environment; whose process it is, its arguments, its directory, which files that tell a conversation it has open.
stray() {
  s_pid=$1 s_probes=$2
  shift 2
  own "$s_pid" && started "$s_pid" && [ "$ZOMBIE" = n ] || return 0
  js "$STARTED"; s=$J
  js "$BOOT"
  look_out process "p$s_pid" \
    "{\"pid\":$s_pid,\"start\":$s,\"boot\":$J,\"incarnation\":0,\"group\":${GROUP:-0},\"alive\":true}"
  work_of "$s_pid"
  look_out fact "p$s_pid" "{\"key\":\"cwd\",\"data\":\"$(emit "$CWD" | base64 | tr -d '\n')\"}"
  if [ -r "/proc/$s_pid/cmdline" ]; then
    d=$(head -c 8192 "/proc/$s_pid/cmdline" | base64 | tr -d '\n')
    # shellcheck disable=SC2012
    s_open=$(ls -l "/proc/$s_pid/fd" 2>/dev/null | sed -n 's/.* -> //p')
  else
    d=$(ps -o args= -p "$s_pid" 2>/dev/null | tr ' ' '\000' | base64 | tr -d '\n')
    s_open=$(lsof -a -p "$s_pid" -Fn 2>/dev/null </dev/null | sed -n 's/^n//p')
  fi
  look_out fact "p$s_pid" "{\"key\":\"argv\",\"data\":\"$d\"}"
  printf '%s\n' "$s_open" | sed -n 's/^.*\/\([A-Za-z0-9._-]*\.lock\)$/\1/p' | sort -u | head -n 50 | while read -r f; do
    look_out names "p$s_pid" "{\"key\":\"open\",\"base\":\"$f\"}"
  done
  (
    taken_from "$s_pid" "$@"
    # shellcheck disable=SC2034
    home=$HOME workdir=$CWD dir=/nonexistent
    "$s_probes"
  ) | while IFS=$tab read -r q_kind q_key q_path; do
    l_pid=$s_pid l_id= look_at= l_newer= l_sizes= look_sizes= look_sized=
    look_where "$q_path" || continue
    look_probe "p$s_pid" "$q_kind" "$q_key" "$WHERE"
    look_size
  done
}
