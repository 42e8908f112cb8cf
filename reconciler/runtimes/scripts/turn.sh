boot
started $$
me="$BOOT $incarnation $GROUP $$ $STARTED"
# The bound of a turn holds whoever is connected: then its process group goes, and it has ended once the agent has.
(
  trap '' TERM INT HUP
  w_n=0
  while [ "$w_n" -lt "$limit" ]; do
    sleep 1
    w_n=$((w_n + 1))
    [ ! -e "$dir/exit.$incarnation" ] || exit 0
  done
  : >"$dir/timeout"
  kill -TERM "-$GROUP"
  w_n=0
  while [ "$w_n" -lt 5 ]; do
    sleep 1
    w_n=$((w_n + 1))
    [ ! -e "$dir/exit.$incarnation" ] || exit 0
  done
  over 124 timeout "$limit s" # by its last breath: it is in the group, too
  kill -KILL "-$GROUP"
) </dev/null >/dev/null 2>&1 &
if [ -e "$dir/stdin" ]; then
  sh "$dir/launch" become "$me" "$@" <"$dir/stdin"
else
  sh "$dir/launch" become "$me" "$@"
fi
code=$?
if [ -e "$dir/timeout" ]; then over 124 timeout "$limit s"; else over $code '' ''; fi
