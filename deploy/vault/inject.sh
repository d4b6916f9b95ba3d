#!/bin/sh
# Gives the secrets that lie in HashiCorp Vault or OpenBao to a program that wants plain environment variables.
#
#   deploy/vault/inject.sh python report.py      # the variables exist in that program only
#   eval "$(deploy/vault/inject.sh)"             # in this shell, and all that it starts
#
# Nova itself does not need it: it reads Vault, and takes over a rotated secret without a restart, which a program that
# was given its environment here cannot. Variables that are set already are left as they are, as Nova does.
#
# Needs VAULT_ADDR and a login (VAULT_TOKEN, or `vault login`). VAULT_CLI, NOVA_VAULT_MOUNT, NOVA_VAULT_PATH: as for
# layout.sh. NOVA_VAULT_SECRETS: which secrets are read (default: all five). A secret that is not there is left out;
# if Vault cannot be asked, nothing is started.
set -eu

cli=${VAULT_CLI:-$(command -v bao || command -v vault || echo vault)}
mount=${NOVA_VAULT_MOUNT:-secret}
path=${NOVA_VAULT_PATH:-user}
wanted=${NOVA_VAULT_SECRETS:-anthropic,openai,neon,upstash,r2}

"$cli" token lookup >/dev/null || {
  echo "inject.sh: Vault cannot be asked: check VAULT_ADDR, and the login" >&2
  exit 1
}

# quoted VALUE: print it as one word of the shell.
quoted() {
  printf "'"
  printf '%s' "$1" | sed "s/'/'\\\\''/g"
  printf "'"
}

# take SECRET VARIABLE...: export those variables that the secret has and that are not set yet.
take() {
  secret=$1
  shift
  case ",$wanted," in *",$secret,"*) ;; *) return ;; esac
  for variable in "$@"; do
    eval "value=\${$variable:-}"
    [ -z "$value" ] || continue
    value=$("$cli" kv get -mount="$mount" -field="$variable" "$path/$secret" 2>/dev/null) || continue
    lines="${lines}export $variable=$(quoted "$value")
"
  done
}

lines=
take anthropic ANTHROPIC_API_KEY
take openai OPENAI_API_KEY
take neon DATABASE_URL
take upstash REDIS_URL
take r2 R2_ENDPOINT R2_BUCKET R2_ACCESS_KEY_ID R2_SECRET_ACCESS_KEY

if [ "$#" -eq 0 ]; then
  printf '%s' "$lines"
else
  eval "$lines"
  exec "$@"
fi
