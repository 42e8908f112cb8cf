# reconciler: a long-lived shell that starts operations and waits for none. Comes after common.sh; then
# `reconciler_operate NONCE TEXT` for each. TEXT goes through a pipe to an `sh` of its own: into no argv, no environment
# and no file.

# What is started by `&` in a shell without job control ignores INT and QUIT, and so would the agents that it starts. So:
# `setsid -f` where there is one (Linux), job control where the shell has it without a terminal (macOS: its sh is bash).
operate_by=
if setsid -f true </dev/null >/dev/null 2>&1; then
  operate_by=setsid
elif [ -n "${BASH_VERSION-}" ]; then
  operate_by=shell
fi

# reconciler_operate NONCE TEXT: says `unfit` where it cannot; then nothing was begun.
reconciler_operate() {
  case $operate_by in
  setsid) emit "$2" | setsid -f sh ;;
  shell)
    set -m
    emit "$2" | sh &
    set +m
    ;;
  *) printf '\nunfit\t%s\n' "$1" ;;
  esac 2>/dev/null
}
