boot
started $$
me="$BOOT $incarnation $GROUP $$ $STARTED"
if [ -e "$dir/stdin" ]; then
  sh "$dir/launch" become "$me" "$@" <"$dir/stdin"
else
  sh "$dir/launch" become "$me" "$@"
fi
over $? '' ''
# Whoever listens looks again now. tmux would tell that this pane is dead, but not always: it may miss the end of a child.
[ ! -S "${dir%/sessions/*}/tmux" ] ||
  TMUX='' bounded 5 tmux -N -S "${dir%/sessions/*}/tmux" rename-window -t =_ctl: news >/dev/null 2>&1
