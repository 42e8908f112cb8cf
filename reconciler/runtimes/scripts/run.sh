boot
started $$
me="$BOOT $incarnation $GROUP $$ $STARTED"
if [ -e "$dir/stdin" ]; then
  sh "$dir/launch" become "$me" "$@" <"$dir/stdin"
else
  sh "$dir/launch" become "$me" "$@"
fi
over $? '' ''
