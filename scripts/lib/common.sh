# Shared by the scripts: where things are, and how what is missing gets installed. Sourced, not run.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STATE=${GATEHOUSE_STATE:-$ROOT/var}
export GATEHOUSE_STATE=$STATE

say() { printf '%s\n' "$*"; }

# need_packages NAME...: install the Debian packages that are missing.
need_packages() {
  local name missing=()
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ]; then
    say "These packages are missing and only root can install them: ${missing[*]}"
    return 1
  fi
  say "Installing ${missing[*]}"
  # An installation that was interrupted is ended first.
  [ -z "$(ls /var/lib/dpkg/updates 2>/dev/null)" ] || dpkg --configure -a >/dev/null
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_python REQUIREMENTS: a .venv that holds what the file pins; installed again when a file changed.
# What tests need holds all that a run needs, so a run after a test installs nothing.
need_python() {
  local want have
  want=$(cat "$ROOT"/requirements*.txt | sha256sum)
  have=$(cat "$ROOT/.venv/installed" 2>/dev/null || true)
  if [ "$have" != "$1 $want" ] && [ "$have" != "requirements-dev.txt $want" ]; then
    say "Installing Python packages into .venv"
    /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      say "Gatehouse needs Python 3.11 or later (Debian 12, Ubuntu 24.04); this machine has $(/usr/bin/python3 -V)."
      return 1
    }
    # pip comes last into a new .venv: without it, its making was interrupted.
    "$ROOT/.venv/bin/python" -m pip --version >/dev/null 2>&1 || /usr/bin/python3 -m venv --clear "$ROOT/.venv"
    "$ROOT/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$ROOT/$1"
    printf '%s' "$1 $want" >"$ROOT/.venv/installed"
  fi
  PATH=$ROOT/.venv/bin:$PATH
}
