# reconciler: an agent prints a conversation. After common.sh, pull.sh and the settings NONCE dir shell LIMIT BODY.
# BODY sets the session's environment and runs the agent in its directory; it comes by the environment, since the
# arguments of a process can be read by anybody. The agent writes to a file, so that what profiles print stays out.

umask 077
mkdir -p "$dir" 2>/dev/null
out=$dir/export.new
trap 'rm -f "$out"' 0
trap 'exit 1' 1 2 15
[ -n "$shell" ] || shell=${SHELL:-/bin/sh}
for mode in -lc -ilc; do
  rm -f "$out"
  # shellcheck disable=SC2016
  words=$(
    ulimit -f $((LIMIT / 512 + 1))
    RECONCILER_OUT=$out RECONCILER_BODY=$BODY
    export RECONCILER_OUT RECONCILER_BODY
    bounded 90 "$shell" $mode 'exec sh -c '\''eval "$RECONCILER_BODY"'\''' 2>&1
  )
  code=$?
  [ "$code" -eq 127 ] || break
done
if [ "$code" -eq 0 ] && [ -s "$out" ]; then
  one 0 "$out" "$LIMIT" - -
else
  case $code in 127) word=agent-missing ;; 91) word=workdir-missing ;; 124 | 137) word=timed-out ;; *) word=failed ;; esac
  [ -w "$dir" ] || word=disk-full
  say 0 $word 0 0 0 "$(printf %s "$words" | tail -n 3 | tr -c '[:print:]' ' ' | cut -c 1-300)"
fi
rm -f "$out"
