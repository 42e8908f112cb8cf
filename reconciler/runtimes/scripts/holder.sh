# reconciler: a question about the lease. Sent after common.sh and guard.sh, whose guard it does not need.

# op_holder: who holds the lease, for how many seconds more, and which machine `local` is. Changes nothing.
op_holder() {
  fence=0 l_holder='' l_until=0 l_local=''
  [ -r "$state/fence" ] && read -r fence <"$state/fence"
  number "$fence" || fence=0
  [ -r "$state/lease" ] && read -r l_until l_holder <"$state/lease"
  [ -r "$state/local" ] && IFS= read -r l_local <"$state/local"
  now=$(date +%s)
  number "$l_until" && [ "$l_until" -gt "$now" ] && [ "$l_until" -le "$((now + 600))" ] || l_holder='' l_until=$now
  js "$l_holder"
  h=$J
  js "$l_local"
  answer "{\"ok\":true,\"fence\":$fence,\"holder\":$h,\"seconds\":$((l_until - now)),\"local\":$J}"
}
