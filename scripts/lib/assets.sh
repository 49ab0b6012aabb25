# What the browser is sent: packages pinned in package-lock.json, copied and collected. Sourced, not run.
# Wants common.sh and a .venv in PATH (need_python).

# need_assets: node_modules as the lock file says, vendors' files in $STATE/assets, everything in $STATE/static.
# Seconds the first time, nothing when nothing changed; each step can be interrupted and done again.
need_assets() {
  local want
  want=$(cat "$ROOT/package-lock.json" "$ROOT/scripts/lib/assets.sh" "$ROOT/scripts/lib/icons.txt" | sha256sum)
  if [ "$(cat "$STATE/assets/.copied" 2>/dev/null)" != "$want" ]; then
    _install_packages
    _copy_assets
    printf '%s' "$want" >"$STATE/assets/.copied"
  fi
  want=$(find "$ROOT/static" "$STATE/assets/.copied" -type f -exec sha256sum {} + | sort | sha256sum)
  if [ "$(cat "$STATE/static/.collected" 2>/dev/null)" != "$want" ]; then
    say "Collecting static files"
    python "$ROOT/manage.py" collectstatic --noinput --clear --verbosity 0
    printf '%s' "$want" >"$STATE/static/.collected"
  fi
}

_install_packages() {
  local want
  want=$(sha256sum <"$ROOT/package-lock.json")
  [ "$(cat "$ROOT/node_modules/.installed" 2>/dev/null)" != "$want" ] || return 0
  # A Node.js that is there already serves, wherever it came from.
  command -v npm >/dev/null || need_packages nodejs npm
  say "Installing front-end packages"
  (cd "$ROOT" && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error)
  printf '%s' "$want" >"$ROOT/node_modules/.installed"
}

_copy_assets() {
  local from=$ROOT/node_modules to=$STATE/assets/vendor
  rm -rf "$STATE/assets"
  mkdir -p "$to/tabler" "$to/htmx" "$to/xterm" "$to/novnc"
  # A map that is named and not there would stop the collecting of hashed names.
  _without_map "$from/@tabler/core/dist/css/tabler.min.css" "$to/tabler/tabler.min.css"
  _without_map "$from/@tabler/core/dist/js/tabler.min.js" "$to/tabler/tabler.min.js"
  _without_map "$from/htmx.org/dist/htmx.min.js" "$to/htmx/htmx.min.js"
  _without_map "$from/idiomorph/dist/idiomorph-ext.min.js" "$to/htmx/idiomorph-ext.min.js"
  _without_map "$from/@xterm/xterm/lib/xterm.mjs" "$to/xterm/xterm.mjs"
  _without_map "$from/@xterm/addon-fit/lib/addon-fit.mjs" "$to/xterm/addon-fit.mjs"
  _without_map "$from/@xterm/xterm/css/xterm.css" "$to/xterm/xterm.css"
  cp -R "$from/@novnc/novnc/core" "$from/@novnc/novnc/vendor" "$to/novnc/"
  # A licence goes wherever the code goes.
  cp "$from/@novnc/novnc/LICENSE.txt" "$to/novnc/"
  cp "$from/@xterm/xterm/LICENSE" "$to/xterm/"
  cp "$from/htmx.org/LICENSE" "$to/htmx/"
  cp "$from/@tabler/icons/LICENSE" "$to/tabler/"
  python "$ROOT/scripts/lib/icons.py" "$from/@tabler/icons/icons" "$to/icons.svg"
}

_without_map() { sed 's,//# sourceMappingURL=.*$,,; s,/\*# sourceMappingURL=.*\*/,,' "$1" >"$2"; }
