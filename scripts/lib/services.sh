# What the portal is made of while it runs. Sourced, not run. Each process's id lies in var/run/NAME.pid.
RUN=$STATE/run
LOG=$STATE/log
#: In the order in which they are stopped.
PARTS=(consoles watcher scheduler worker web redis)

# need_database_client: what copies a PostgreSQL database out and in.
need_database_client() {
  case ${DATABASE_URL:-} in
    postgres*) need_packages postgresql-client ;;
  esac
}

# is_up NAME: its process lives and is still the one that was started.
is_up() {
  local pid
  pid=$(cat "$RUN/$1.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
  # Redis writes its title over its environment; the title names its socket.
  grep -qz "GATEHOUSE_PART=$1" "/proc/$pid/environ" 2>/dev/null || grep -qzF "$RUN/" "/proc/$pid/cmdline" 2>/dev/null
}

#: What this script started, the newest first.
STARTED=()

# start NAME COMMAND...: in a session of its own, unless it runs already. Returns when it is what it will be.
start() {
  local name=$1 tries
  shift
  is_up "$name" && return 0
  # Noted before it starts: a signal may come at any moment.
  STARTED=("$name" "${STARTED[@]}")
  (
    # What the caller holds open, a lock perhaps, must not stay held for as long as the portal runs.
    for number in $(ls "/proc/$BASHPID/fd"); do [ "$number" -le 2 ] || eval "exec $number>&-"; done
    GATEHOUSE_PART=$name exec setsid "$@"
  ) >>"$LOG/$name.log" 2>&1 </dev/null &
  echo $! >"$RUN/$name.pid"
  rm -f "$RUN/$name.stopping"
  # Until then it is this script's copy, which nobody would know as the part.
  for tries in $(seq 500); do
    is_up "$name" || ! kill -0 $! 2>/dev/null || { sleep 0.01 && continue; }
    break
  done
}

# any_is_up: something of this portal runs.
any_is_up() {
  local name
  for name in "${PARTS[@]}"; do is_up "$name" && return 0; done
  return 1
}

# tell_fallen: say which parts ended by themselves, each once, with the end of what it said. Fails when one did.
tell_fallen() {
  local name fell=0
  for name in "${PARTS[@]}"; do
    [ -e "$RUN/$name.pid" ] && ! is_up "$name" || continue
    # Somebody who stops the portal from another terminal ends it on purpose; the second look is for who just did.
    [ ! -e "$RUN/$name.stopping" ] && [ -e "$RUN/$name.pid" ] || continue
    fell=1
    rm -f "$RUN/$name.pid"
    say "The part $name of the portal ended by itself. The end of $LOG/$name.log:"
    tail -5 "$LOG/$name.log" || true
  done
  return $fell
}

# stop NAME: ask, wait up to ten seconds, then insist.
stop() {
  local pid tries
  if is_up "$1"; then
    pid=$(cat "$RUN/$1.pid")
    : >"$RUN/$1.stopping"
    kill "$pid" 2>/dev/null || true
    for tries in $(seq 100); do
      is_up "$1" || break
      sleep 0.1
    done
    if is_up "$1"; then
      say "$1 did not end in ${tries} tenths of a second and is killed."
      kill -9 "$pid" 2>/dev/null || true
    fi
  fi
  rm -f "$RUN/$1.pid" "$RUN/$1.stopping"
}

# start_redis: the portal's own, unless REDIS_URL names another; /healthz/ready tells whether that one answers.
start_redis() {
  [ -z "${REDIS_URL:-}" ] || return 0
  is_up redis && return 0
  start redis redis-server --port 0 --unixsocket "$RUN/redis.sock" --unixsocketperm 770 --dir "$STATE" \
    --save "" --appendonly no
  local tries
  for tries in $(seq 50); do
    redis-cli -s "$RUN/redis.sock" ping >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  say "Redis does not answer after 5 s (tried $tries times): see $LOG/redis.log"
  return 1
}
