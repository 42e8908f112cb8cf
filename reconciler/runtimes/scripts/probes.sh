# reconciler: what a look tells of what agents wanted to know at each look. Comes with sessions.sh.

# look_fill PLACEHOLDER VALUE TEXT: FILLED becomes TEXT with VALUE in that place. Of a pattern in quotes within quotes,
# zsh takes the inner ones for part of it.
look_fill() { FILLED=${3%%"$1"*}$2${3#*"$1"}; }

# look_where PATH: WHERE becomes the path of a probe, of the session whose conversation is l_id and whose agent l_pid.
look_where() {
  WHERE=$1
  case $WHERE in *'{session_id}'* | *'{session_id_8}'*)
    case $l_id in '' | *[!A-Za-z0-9_.-]*) return 1 ;; esac
    case $WHERE in
    *'{session_id_8}'*)
      l_rest=${l_id#????????}
      look_fill '{session_id_8}' "${l_id%"$l_rest"}" "$WHERE"
      ;;
    *) look_fill '{session_id}' "$l_id" "$WHERE" ;;
    esac
    WHERE=$FILLED
    ;;
  esac
  case $WHERE in *'{pid}'*) look_fill '{pid}' "${l_pid:-0}" "$WHERE" && WHERE=$FILLED ;; esac
}

# look_probes NUMBER: l_probes becomes its probes with their paths as they are now; what they rest on is noted.
look_probes() {
  l_single= l_stores= l_names= l_probes=
  [ -r "$l_dir/probe" ] || return 0
  if ! look_fresh "$l_dir/probe"; then
    l_many=
    while IFS= read -r l; do l_many=$l_many$l$line_end; done <"$l_dir/probe"
    eval "look_probe_$1=\$l_many"
  fi
  eval "l_many=\$look_probe_$1"
  IFS=$line_end
  set -f
  for l in $l_many; do
    q_kind=${l%%"$tab"*}
    l=${l#*"$tab"}
    look_where "${l#*"$tab"}" || continue
    case $WHERE in *"$line_end"*) l_sure= ;; esac
    l_probes=$l_probes$line_end$q_kind$tab${l%%"$tab"*}$tab$WHERE
    case $q_kind in
    store) l_stores=$l_stores$line_end$WHERE ;;
    names) l_names=$l_names$line_end$WHERE ;;
    *) l_single=$l_single$line_end$WHERE ;;
    esac
  done
  set +f
  unset IFS
}

# look_probe NAME KIND KEY PATH: what the agent wanted to know at each look.
look_probe() {
  js "$3"
  k=$J
  case $2 in
  file | tail)
    [ -f "$4" ] && [ -r "$4" ] || return 0
    if [ "$2" = file ]; then d=$(head -c 4096 "$4" | base64); else d=$(tail -c 4096 "$4" | base64); fi
    IFS=$line_end
    # shellcheck disable=SC2086
    set -- "$1" "$2" "$3" "$4" $d
    l_name_of=$1
    shift 4
    IFS=
    d=$*
    unset IFS
    look_out fact "$l_name_of" "{\"key\":$k,\"data\":\"$d\"}"
    ;;
  store | names)
    look_out "$2" "$1" "{\"key\":$k}"
    l_n=0
    IFS=
    # shellcheck disable=SC2086
    for f in $4; do
      [ -f "$f" ] && [ ! -L "$f" ] || continue
      l_n=$((l_n + 1))
      [ "$l_n" -le 200 ] || break
      if [ "$2" = names ]; then
        js "${f##*/}"
        look_out names "$1" "{\"key\":$k,\"base\":$J}"
      else
        case $f in *"$line_end"*) l_sure= && continue ;; esac # it can be no part of a conversation
        look_stored "$f"
        js "$f"
        [ -n "$l_size" ] || look_sizes=$look_sizes$line_end$f
        look_sized=$look_sized$line_end$look_at:$l_size$tab$1$tab"{\"key\":$k,\"path\":$J"$tab$f
      fi
    done
    unset IFS
    ;;
  esac
}

# look_size: sizes and times of the files of look_sizes, by one program for all sessions. look_sized says of these and of
# those that are known, in the same order, of which session each is (by number and name), what is told of it, and the file.
look_size() {
  [ -n "$look_sized" ] || return 0
  if [ -z "$look_stat" ]; then
    look_stat='%s %Y' look_stat_flag=-c
    stat -c %s / >/dev/null 2>&1 || look_stat='%z %m' look_stat_flag=-f
  fi
  IFS=$line_end
  set -f
  # shellcheck disable=SC2086
  set -- $look_sizes
  l_many=$#
  # shellcheck disable=SC2046,SC2086
  [ $# -eq 0 ] || set -- $(stat "$look_stat_flag" "$look_stat" $look_sizes 2>/dev/null </dev/null)
  [ $# -eq "$l_many" ] || set -- # one of them is gone
  for l in $look_sized; do
    l_number=${l%%"$tab"*} l=${l#*"$tab"}
    l_name=${l%%"$tab"*} l=${l#*"$tab"}
    f=${l#*"$tab"} l=${l%%"$tab"*}
    l_size=${l_number#*:} l_number=${l_number%:*}
    if [ -z "$l_size" ] && [ $# -gt 0 ]; then
      l_size=$1
      shift
    fi
    [ -n "$l_size" ] || look_size_of "$f"
    l="$l,\"size\":${l_size% *},\"mtime\":${l_size#* }}"
    if [ -n "$l_number" ]; then
      l=store$tab$l_name$tab$l$line_end
      eval "look_text_$l_number=\$look_text_$l_number\$l look_count_$l_number=\$((look_count_$l_number + 1))"
      eval "look_stored_$l_number=\$look_stored_$l_number\$line_end\$f\$tab\$l_size"
    else
      look_out store "$l_name" "$l"
    fi
  done
  set +f
  unset IFS
  look_sizes= look_sized=
}

# look_size_of FILE: l_size becomes its size and time.
look_size_of() {
  l_size=$(stat "$look_stat_flag" "$look_stat" "$1" 2>/dev/null </dev/null) || l_size="$(wc -c <"$1") 0"
}
