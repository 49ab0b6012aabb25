# Who serves the pages, and what of the state they may touch. Sourced, not run.
# Started by root, the web process runs as the system user `gatehouse`, without any right of root's.

# need_web_user: sets WEB_UID and WEB_GID, and makes the system user when it is missing.
need_web_user() {
  local name=gatehouse
  WEB_UID=$(id -u) WEB_GID=$(id -g)
  [ "$WEB_UID" = 0 ] || return 0
  if ! getent passwd "$name" >/dev/null; then
    say "Making the system user $name, as whom the web process runs"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$name" || {
      say "The user $name cannot be made: the web process runs as nobody."
      name=nobody
    }
  fi
  WEB_UID=$(id -u "$name") WEB_GID=$(id -g "$name")
}

# lend_sockets: what Redis and the console broker will make in the folder of sockets belongs to the group.
lend_sockets() {
  [ "$(id -u)" = 0 ] || return 0
  chown "root:$WEB_GID" "$STATE" "$RUN"
  chmod 750 "$STATE"
  chmod 2750 "$RUN"
}

# place_database: the database has a folder of its own, because who writes SQLite writes files beside it.
place_database() {
  local end
  mkdir -p "$STATE/db"
  # An empty file is what any look through the settings makes.
  [ -f "$STATE/gatehouse.sqlite3" ] && [ ! -s "$STATE/db/gatehouse.sqlite3" ] || return 0
  say "Moving the database into $STATE/db"
  # The log first: a database that lost its log would lose what is only there.
  for end in -shm -wal ''; do
    [ ! -f "$STATE/gatehouse.sqlite3$end" ] || mv "$STATE/gatehouse.sqlite3$end" "$STATE/db/"
  done
}

# lend_state: let the web process read and write what it needs, and nothing else. Only while it does not run,
# because it could put something else into its own folders meanwhile. Idempotent; mends an older state.
lend_state() {
  [ "$(id -u)" = 0 ] || return 0
  # What a worker writes into exports, the web process hands out.
  mkdir -p "$STATE/cache" "$STATE/mail" "$STATE/uploads/parts" "$STATE/exports"
  chown "root:$WEB_GID" "$STATE/db" "$STATE/uploads" "$STATE/exports"
  chmod 2750 "$STATE/exports"
  chmod 750 "$STATE/uploads"
  if [ -f "$STATE/secret_key" ]; then chown "root:$WEB_GID" "$STATE/secret_key" && chmod 640 "$STATE/secret_key"; fi
  chmod 2770 "$STATE/db"
  find "$STATE/db" -maxdepth 1 -type f -links 1 -exec chown "root:$WEB_GID" {} + -exec chmod 660 {} +
  # SQLite makes these two under the umask, and opens them to the group a moment later. A web process that looks in
  # that moment takes them for read-only for as long as it lives: they are there before anybody opens the database.
  local end
  for end in -wal -shm; do
    [ ! -s "$STATE/db/gatehouse.sqlite3" ] || [ -e "$STATE/db/gatehouse.sqlite3$end" ] ||
      install -m 660 -o root -g "$WEB_GID" /dev/null "$STATE/db/gatehouse.sqlite3$end"
  done
  chown -Rh "$WEB_UID:$WEB_GID" "$STATE/cache" "$STATE/mail" "$STATE/uploads/parts"
  chmod 700 "$STATE/cache"
  chmod 2770 "$STATE/mail" "$STATE/uploads/parts"
  local folder
  for folder in "$STATE/static" "$STATE/assets" "$ROOT/.venv" "$ROOT"/{manage.py,portal,networks,vms,templates,static}; do
    lend_to_read "$folder"
  done
}

# lend_to_read PATH: a strict umask may have closed what is below to everybody else. Touches nothing that is open.
lend_to_read() {
  local path may
  path=$(realpath "$1")
  may=(-perm -o=r -o -group "$WEB_GID" -perm -g=r)
  [ -n "$(find "$path" ! -type l ! \( "${may[@]}" \) -print -quit)" ] || return 0
  chgrp -Rh "$WEB_GID" "$path"
  chmod -R g+rX "$path"
}

# web_command COMMAND...: sets WEB, the command that runs COMMAND as the web process's user.
web_command() {
  WEB=("$@")
  [ "$(id -u)" = 0 ] || return 0
  unshare --mount true 2>/dev/null ||
    say "This machine gives no mount namespaces: file permissions alone keep the web process from the hypervisor."
  local -a needs=("$ROOT" "$ROOT/.venv" "$STATE" "$STATE/static")
  [ ! -d "$STATE/images" ] || needs+=("$STATE/images")
  WEB=(env "GATEHOUSE_NEEDS=$(printf '%s\n' "${needs[@]}")" "LOW_PORT=$((PORT < 1024))"
    "$ROOT/scripts/lib/unprivileged" "$WEB_UID" "$WEB_GID" "$@")
}
