boot
started $$
me="$BOOT $incarnation $GROUP $$ $STARTED"
# The bound of a turn holds whoever is connected: then it has ended, and its process group goes.
(
  trap '' TERM INT HUP
  w_n=0
  while [ "$w_n" -lt "$limit" ]; do
    sleep 1
    w_n=$((w_n + 1))
    [ ! -e "$dir/exit.$incarnation" ] || exit 0
  done
  over 124 timeout "$limit s"
  kill -TERM "-$GROUP"
  sleep 5
  kill -KILL "-$GROUP"
) </dev/null >/dev/null 2>&1 &
if [ -e "$dir/stdin" ]; then
  sh "$dir/launch" become "$me" "$@" <"$dir/stdin"
else
  sh "$dir/launch" become "$me" "$@"
fi
code=$?
[ -e "$dir/exit.$incarnation" ] || over $code '' ''
