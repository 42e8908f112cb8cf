# reconciler: what the look, the guard and the launch have in common.
# POSIX sh and coreutils only; works as dash, bash, zsh, ksh and busybox ash, on Linux and macOS.

# js STRING: J becomes STRING as JSON. Forks only where something has to be escaped; control characters go.
js() {
  case $1 in
  *[\\\"]* | *[[:cntrl:]]*) J=\"$(emit "$1" | tr -d '\000-\037\177' | sed 's/\\/\\\\/g; s/"/\\"/g')\" ;;
  *) J=\"$1\" ;;
  esac
}

tab='	'

# emit STRING: print it as it is, by a builtin: as arguments of a program, secrets would show in `ps`, and long texts
# would not fit. mksh has no builtin `printf`.
# shellcheck disable=SC3045
case ${KSH_VERSION-} in
*MIRBSD* | *LEGACY*) emit() { print -rn -- "$1"; } ;;
*) emit() { printf %s "$1"; } ;;
esac

# number STRING: true for a plain decimal number.
number() { case $1 in '' | *[!0-9]*) return 1 ;; esac }

# bounded SECONDS COMMAND...: run it with no input; 124 when it took too long (macOS has no `timeout`).
bounded() {
  bound=$1
  shift
  if command -v timeout >/dev/null 2>&1; then
    timeout -k 1 "$bound" "$@" </dev/null
    return
  fi
  "$@" </dev/null &
  b_pid=$!
  (
    i=0
    while [ "$i" -lt "$((bound * 10))" ] && kill -0 "$b_pid" 2>/dev/null; do
      sleep 0.1
      i=$((i + 1))
    done
    kill -9 "$b_pid" 2>/dev/null
  ) >/dev/null 2>&1 &
  wait "$b_pid"
}

# boot: BOOT becomes an id that changes at each boot of this machine.
boot() {
  BOOT=
  if [ -r /proc/sys/kernel/random/boot_id ]; then
    read -r BOOT </proc/sys/kernel/random/boot_id
  else
    BOOT=$(sysctl -n kern.bootsessionuuid 2>/dev/null || sysctl -n kern.boottime 2>/dev/null)
  fi
}

# started PID: STARTED becomes its start time as the kernel gives it, GROUP its process group, ZOMBIE y or n.
# 0: found; 1: proven gone; 2: cannot tell.
started() {
  STARTED= GROUP= ZOMBIE=n
  number "$1" || return 2
  if [ -r /proc/self/stat ]; then
    if ! { read -r s_line <"/proc/$1/stat"; } 2>/dev/null; then
      [ -d "/proc/$1" ] && return 2
      return 1
    fi
    case $s_line in *') '*) ;; *) return 2 ;; esac
    # shellcheck disable=SC2086
    set -- ${s_line##*) }
    case $1 in Z | X | x) ZOMBIE=y ;; esac
    GROUP=$3
    shift 19
    STARTED=$1
  else
    s_line=$(ps -o stat= -o pgid= -o lstart= -p "$1" 2>/dev/null) || return 1
    [ -n "$s_line" ] || return 1
    # shellcheck disable=SC2086
    set -- $s_line
    case $1 in Z*) ZOMBIE=y ;; esac
    GROUP=$2
    shift 2
    STARTED=$*
    STARTED=$(printf %s "$STARTED" | tr ' ' '_')
  fi
}

# alive PID START BOOT: 0 it lives, 1 proven gone (another boot, another start, no such pid), 2 cannot tell.
alive() {
  [ -n "$BOOT" ] && [ -n "$3" ] || return 2
  [ "$3" = "$BOOT" ] || return 1
  started "$1"
  case $? in 1) return 1 ;; 2) return 2 ;; esac
  [ "$ZOMBIE" = y ] && return 1
  [ "$STARTED" = "$2" ] || return 1
}

# login_path [COMMAND]: LOGIN_PATH becomes the PATH of the user's login shell, of the interactive one where
# COMMAND is found only there (nvm and friends); between marks, since profiles print things.
# Every shell can become `sh`, which reads PATH as we do; one that does so itself need not.
login_path() {
  LOGIN_PATH=$PATH
  l_shell=${RECONCILER_SHELL:-${SHELL:-/bin/sh}}
  # shellcheck disable=SC2016
  for l_mode in -lc -ilc; do
    l_say='printf "reconciler<%s>reconciler" "$PATH"'
    case $l_mode:${l_shell##*/} in
    -lc:sh | -lc:dash | -lc:bash) l_say="trap - 0; $l_say" ;;
    *) l_say="exec sh -c '$l_say'" ;;
    esac
    l_out=$(bounded 10 "$l_shell" "$l_mode" "$l_say" 2>/dev/null)
    case $l_out in
    *'reconciler<'*'>reconciler'*)
      l_out=${l_out##*reconciler<}
      l_out=${l_out%%>reconciler*}
      ;;
    *) continue ;;
    esac
    [ "$l_mode" = -lc ] && LOGIN_PATH=$l_out
    [ -n "${1-}" ] || return 0
    (PATH=$l_out command -v "$1" >/dev/null 2>&1) && LOGIN_PATH=$l_out && return 0
  done
  return 0
}

# sha: the SHA-256 of stdin, in hex.
sha() {
  if command -v sha256sum >/dev/null 2>&1; then
    sha256sum
  elif command -v shasum >/dev/null 2>&1; then
    shasum -a 256
  else
    openssl dgst -sha256 -r
  fi | cut -c 1-64
}

# whole_lines FILE: have, its size, without a last line that has no end: one that was torn when its writer died.
whole_lines() {
  case $1 in *.jsonl)
    [ -z "$(tail -c 1 "$1" | tr -d '\000')" ] || have=$((have - $(tail -n 1 "$1" | wc -c)))
    ;;
  esac
}

# expand_home PATH: EXPANDED becomes PATH with a leading ~ replaced.
expand_home() {
  case $1 in
  '~') EXPANDED=$HOME ;;
  '~/'*) EXPANDED=$HOME/${1#"~/"} ;;
  *) EXPANDED=$1 ;;
  esac
}
