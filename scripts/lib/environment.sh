# The settings of a portal that systemd runs, for commands typed by hand. Sourced before common.sh, not run.
# Not for scripts/run, whose settings are the caller's.

# unquote TEXT: sets VALUE to what systemd's EnvironmentFile makes of it; 1 when a quote is not closed.
unquote() {
  local text=$1 mode='' char next i
  VALUE=
  for ((i = 0; i < ${#text}; i++)); do
    char=${text:i:1} next=${text:i+1:1}
    if [ "$mode" = "'" ]; then
      [ "$char" = "'" ] && mode='' || VALUE+=$char
    elif [ "$char" = "\\" ]; then
      # Between double quotes a backslash stays, but before what it can take the meaning from.
      [ -z "$mode" ] || [[ $next == [\"\\\`\$] ]] || VALUE+=$char
      VALUE+=$next
      i=$((i + 1))
    elif [ "$char" = '"' ]; then
      [ -n "$mode" ] && mode='' || mode='"'
    elif [ "$char" = "'" ] && [ -z "$mode" ]; then
      mode="'"
    else
      VALUE+=$char
    fi
  done
  [ -z "$mode" ]
}

# read_environment: export what the file sets and the environment does not. Nothing in it is run as a command.
# A value is on one line. 1, with a sentence, when the file cannot be read or understood.
read_environment() {
  # Who names another state means another portal: half of the settings of this one would mix the two.
  [ -z "${GATEHOUSE_STATE-}" ] || [ -n "${GATEHOUSE_ENVIRONMENT-}" ] || return 0
  local file=${GATEHOUSE_ENVIRONMENT:-/etc/gatehouse/environment} line name number=0
  [ -e "$file" ] || return 0
  [ -r "$file" ] || {
    echo "$file says which database is the portal's, and you may not read it: run this as root." >&2
    return 1
  }
  echo "Settings that are not in your environment come from $file"
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    [[ $line =~ ^[[:space:]]*([#\;].*)?$ ]] && continue
    if ! [[ $line =~ ^[[:space:]]*([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*=[[:space:]]*(.*[^[:space:]])?[[:space:]]*$ ]]; then
      echo "$file, line $number is no NAME=VALUE: nothing was done." >&2
      return 1
    fi
    name=${BASH_REMATCH[1]}
    unquote "${BASH_REMATCH[2]}" || {
      echo "$file, line $number: a quote is not closed. Nothing was done." >&2
      return 1
    }
    [ -n "${!name+set}" ] || export "$name=$VALUE"
  done <"$file"
}
