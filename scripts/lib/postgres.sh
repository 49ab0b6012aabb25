# A throw-away PostgreSQL for tests, on a Unix socket only. Sourced, not run.

# start_postgres: sets PG_DIR and DATABASE_URL. PostgreSQL refuses to run as root, so root lends it to `postgres`.
start_postgres() {
  PG_BIN=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -1)
  PG_DIR=$(mktemp -d)
  PG_AS=()
  if [ "$(id -u)" = 0 ]; then
    chown postgres "$PG_DIR"
    PG_AS=(setpriv --reuid postgres --regid postgres --init-groups)
  fi
  (
    cd "$PG_DIR"
    "${PG_AS[@]}" "$PG_BIN/initdb" -D "$PG_DIR/data" -U gatehouse -A trust -E UTF8 --no-sync >/dev/null
    "${PG_AS[@]}" "$PG_BIN/pg_ctl" -D "$PG_DIR/data" -w -s -l "$PG_DIR/log" \
      -o "-c listen_addresses= -c unix_socket_directories=$PG_DIR -c fsync=off -c max_connections=400" start
  )
  export DATABASE_URL="postgresql://gatehouse@/postgres?host=$PG_DIR"
}

stop_postgres() {
  [ -n "${PG_DIR:-}" ] || return 0
  (cd "$PG_DIR" && "${PG_AS[@]}" "$PG_BIN/pg_ctl" -D "$PG_DIR/data" -m immediate -s stop) || true
  rm -rf "$PG_DIR"
}
