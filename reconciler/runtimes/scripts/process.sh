# reconciler: a detached process group, its output in the log.

# There is no keyboard.
KEYS=

runtime_needs() { :; }

# A session of its own where there is `setsid`; otherwise (macOS) a job of its own: its sh has job control
# without a terminal, dash does not.
runtime_start() {
  detach=setsid
  command -v setsid >/dev/null 2>&1 || { detach= && set -m; }
  # shellcheck disable=SC2086
  (
    # `exec`, since a redirected subshell would keep the channel open under another number.
    exec </dev/null >>"$dir/log" 2>&1 4>&-
    clean_env dumb
    exec $SCOPE $detach sh "$dir/launch"
  ) &
  [ -n "$detach" ] || set +m
}

runtime_key() { :; }

runtime_end() { :; }

runtime_load() { fail no-terminal "a session of the strategy process has no terminal to send to"; }

runtime_send() { :; }
