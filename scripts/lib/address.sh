# Where the portal listens and by which names it is reached. Sourced, not run.
# Wants common.sh, services.sh and web.sh. Exports what the settings read from the environment.
PORT=${PORT:-8000}
BIND=${BIND:-127.0.0.1}
TLS_OPTIONS=()
SCHEME=http
if [ -n "${TLS_CERT:-}${TLS_KEY:-}" ]; then
  [ -r "${TLS_CERT:-}" ] && [ -r "${TLS_KEY:-}" ] || {
    say "TLS_CERT and TLS_KEY must both name a file that can be read: the certificate with its chain, and its key."
    exit 1
  }
  SCHEME=https
  export GATEHOUSE_TLS=1
fi

# reachable: the address to look at from this machine, whatever BIND is.
case $BIND in
  0.0.0.0) REACHED=127.0.0.1 ;;
  :: | '[::]') BIND=:: REACHED='[::1]' ;;
  *:*) BIND=${BIND#[} BIND=${BIND%]} REACHED="[${BIND%]}]" ;;
  *) REACHED=$BIND ;;
esac
is_loopback() { case $BIND in 127.* | ::1 | localhost) return 0 ;; *) return 1 ;; esac; }

# Browsers may use every name and address that leads here, unless ALLOWED_HOSTS says which.
if [ -z "${ALLOWED_HOSTS:-}" ] && ! is_loopback; then
  names=(127.0.0.1 localhost '[::1]' "$(hostname)" "$(hostname -f 2>/dev/null || hostname)" "$REACHED")
  for name in $(hostname -I 2>/dev/null); do
    case $name in *:*) names+=("[$name]") ;; *) names+=("$name") ;; esac
  done
  ALLOWED_HOSTS=$(printf '%s\n' "${names[@],,}" | sort -u | paste -sd,)
  export ALLOWED_HOSTS
fi

# A name that the portal answers to.
NAME=${ALLOWED_HOSTS:-}
NAME=${NAME%%,*}
case $NAME in
  '' | '*') NAME=$REACHED ;;
  .*) NAME=${NAME#.} ;;
esac
ADDRESS=$SCHEME://$REACHED:$PORT
# Where links in mails and jumps lead, unless somebody says it.
export PUBLIC_URL=${PUBLIC_URL:-$SCHEME://$NAME:$PORT}

# need_free_port: say so when somebody else listens there, before anything is started.
need_free_port() {
  if is_up web; then
    [ "$(cat "$RUN/address" 2>/dev/null || echo "$ADDRESS")" = "$ADDRESS" ] && return 0
    say "This portal runs already at $(cat "$RUN/address"); ./scripts/stop ends it."
    exit 1
  fi
  case $PORT in '' | *[!0-9]*) say "PORT is a number from 1 to 65535, not '$PORT'." && exit 1 ;; esac
  python3 - "$BIND" "$PORT" <<'PYTHON' || exit 1
import errno, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
try:
    family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(where)
except (OSError, OverflowError) as error:
    told = {
        errno.EADDRINUSE: f"Port {port} of {host} is taken by another program. Choose another: PORT={min(port + 1, 65535)} ./scripts/run",
        errno.EACCES: f"Only root may listen on port {port}. Choose one above 1023: PORT=8443 ./scripts/run",
        errno.EADDRNOTAVAIL: f"This machine has no address {host}. BIND names one of its addresses, or 0.0.0.0 for all.",
    }
    sys.exit(told.get(error.errno, f"Nothing can listen on {host}:{port}: {error}"))
PYTHON
}

# lend_certificate: a copy of the certificate and key that the web process can read. Sets TLS_OPTIONS.
lend_certificate() {
  [ "$SCHEME" = https ] || return 0
  install -d -o root -g "$WEB_GID" -m 750 "$STATE/tls" 2>/dev/null || mkdir -p "$STATE/tls"
  install -m 640 "$TLS_CERT" "$STATE/tls/certificate.pem"
  install -m 640 "$TLS_KEY" "$STATE/tls/key.pem"
  [ "$(id -u)" != 0 ] || chgrp "$WEB_GID" "$STATE/tls/certificate.pem" "$STATE/tls/key.pem"
  TLS_OPTIONS=(--ssl-certfile "$STATE/tls/certificate.pem" --ssl-keyfile "$STATE/tls/key.pem")
}

_ready() {
  local host=()
  # Django answers only to names that it knows.
  [ -z "${ALLOWED_HOSTS:-}" ] || host=(-H "Host: $NAME")
  curl -fsSk -m 5 -o /dev/null "${host[@]}" "$ADDRESS/healthz/ready" "$@"
}

# wait_until_ready: returns when the portal can work and all its parts live; else says where to look, and fails.
wait_until_ready() {
  local end=$((SECONDS + 60))
  sleep 0.1
  until _ready 2>/dev/null; do
    tell_fallen || return 1
    if [ $SECONDS -ge $end ]; then
      say "The portal does not become ready. The end of $LOG/web.log:"
      tail -5 "$LOG/web.log"
      say "What is not ready: $(curl -sk -m 5 "$ADDRESS/healthz/ready" 2>/dev/null || echo "nothing answers at $ADDRESS")"
      return 1
    fi
    sleep 0.1
  done
  # A part that cannot work ends while it starts; web, which is ready, loaded as much as each of them.
  [ ${#STARTED[@]} -eq 0 ] || sleep 1
  tell_fallen
}

# warn_of_plain_text: one sentence when passwords would travel in the clear.
warn_of_plain_text() {
  is_loopback || [ "$SCHEME" = https ] || [ "${GATEHOUSE_TLS:-}" = 1 ] ||
    say "Warning: whoever listens on the network reads passwords, since this is not encrypted; set TLS_CERT and TLS_KEY or put a reverse proxy in front (docs/install.md)."
}
