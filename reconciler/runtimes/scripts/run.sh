boot
started $$
me="$BOOT $incarnation $GROUP $$ $STARTED"
if [ -e "$dir/stdin" ]; then
  sh "$dir/launch" become "$me" "$@" <"$dir/stdin"
else
  sh "$dir/launch" become "$me" "$@"
fi
over $? '' ''
# Whoever listens looks again now. tmux tells that this pane is dead as soon as we have gone, but not always: it may miss
# the end of a child. So we tell it too, and do not stay for it: in a session of its own, it hears nothing of the terminal
# that goes away with us.
if [ -S "${dir%/sessions/*}/tmux" ]; then
  set -- tmux -N -S "${dir%/sessions/*}/tmux" rename-window -t =_ctl: news
  if command -v setsid >/dev/null 2>&1 && command -v timeout >/dev/null 2>&1; then
    trap '' TERM INT HUP
    TMUX='' setsid timeout -k 1 5 "$@" </dev/null >/dev/null 2>&1 &
  else
    TMUX='' bounded 5 "$@" >/dev/null 2>&1
  fi
fi
