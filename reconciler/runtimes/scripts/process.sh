# reconciler: a detached process group, its output in the log.

# There is no keyboard.
KEYS=

runtime_needs() { :; }

# A process group of its own. A shell without job control starts `&` with INT and QUIT ignored, which the agent
# would inherit: so `setsid -f` where there is one (Linux), job control where the shell has it without a terminal
# (macOS: its sh is bash), and `&` only for what is left.
runtime_start() {
  if setsid -f true 2>/dev/null; then
    (start_detached setsid -f)
  elif command -v setsid >/dev/null 2>&1; then
    (start_detached setsid) &
  else
    set -m
    (start_detached) &
    set +m
  fi
}

start_detached() {
  # `exec`, since a redirected subshell would keep the channel open under another number.
  exec </dev/null >>"$dir/log" 2>&1 4>&-
  trap - HUP PIPE
  clean_env dumb
  # shellcheck disable=SC2086
  exec $SCOPE "$@" sh "$dir/launch"
}

runtime_key() { :; }

runtime_end() { :; }

runtime_load() { fail no-terminal "a session of the strategy process has no terminal to send to"; }

runtime_send() { :; }

runtime_rename() { :; }
