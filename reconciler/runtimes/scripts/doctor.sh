# What a host is like, for people: one line `fact TAB key TAB value` each. Changes nothing.
#
#   reconciler_doctor NONCE [login FILE | text FILE WORD]...
#
# `login`: whether the file is there and not empty; `text`: whether it holds the word. Names of variables in the login
# environment are told, never their values.

fact() {
  printf 'fact\t%s\t%s\n' "$1" "$(printf '%s' "$2" | tr -d '\000-\037\177' | cut -c 1-1000)"
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
  fi
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
    esac
    shift 2
  done
  printf 'end\t\n'
}
