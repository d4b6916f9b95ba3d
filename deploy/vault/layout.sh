#!/bin/sh
# Lays out Nova's secrets in HashiCorp Vault or OpenBao: the KV version 2 engine, the policy, an AppRole, the secrets.
#
#   ANTHROPIC_API_KEY=... DATABASE_URL=... deploy/vault/layout.sh
#
# Needs VAULT_ADDR and a login that may write policies and roles. Writes each secret all of whose variables are set,
# and leaves the others as they are, so that it may be run again for one secret, such as at a rotation. No value is an
# argument of a program, where others on the machine could see it.
#
# VAULT_CLI: bao or vault (default: whichever is found). NOVA_VAULT_MOUNT, NOVA_VAULT_PATH, NOVA_VAULT_APPROLE_MOUNT:
# as Nova reads them.
set -eu

cli=${VAULT_CLI:-$(command -v bao || command -v vault || echo vault)}
mount=${NOVA_VAULT_MOUNT:-secret}
path=${NOVA_VAULT_PATH:-user}
approle=${NOVA_VAULT_APPROLE_MOUNT:-approle}

"$cli" token lookup >/dev/null || {
  echo "layout.sh: Vault cannot be asked: check VAULT_ADDR, and the login (VAULT_TOKEN)" >&2
  exit 1
}

umask 077
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM

"$cli" secrets list -format=json | grep -q "\"$mount/\"" || "$cli" secrets enable -path="$mount" -version=2 kv
"$cli" auth list -format=json | grep -q "\"$approle/\"" || "$cli" auth enable -path="$approle" approle
printf 'path "%s/data/%s/*" {\n  capabilities = ["read"]\n}\n' "$mount" "$path" | "$cli" policy write nova -
"$cli" write "auth/$approle/role/nova" token_policies=nova token_ttl=1h token_max_ttl=24h >/dev/null

# lay SECRET VARIABLE...: write a secret if all of its variables are set.
lay() {
  secret=$1
  shift
  for variable in "$@"; do
    eval "value=\${$variable:-}"
    if [ -z "$value" ]; then
      echo "$mount/$path/$secret: left as it is ($variable is not set)"
      return
    fi
    printf '%s' "$value" >"$scratch/$variable"
  done
  # The names become NAME=@file words, which is how the CLI reads a value from a file.
  count=$#
  while [ "$count" -gt 0 ]; do
    set -- "$@" "$1=@$scratch/$1"
    shift
    count=$((count - 1))
  done
  "$cli" kv put -mount="$mount" "$path/$secret" "$@" >/dev/null
  echo "$mount/$path/$secret: written"
}

lay anthropic ANTHROPIC_API_KEY
lay openai OPENAI_API_KEY
lay neon DATABASE_URL
lay upstash REDIS_URL
lay r2 R2_ENDPOINT R2_BUCKET R2_ACCESS_KEY_ID R2_SECRET_ACCESS_KEY

echo "role id, for VAULT_ROLE_ID: $("$cli" read -field=role_id "auth/$approle/role/nova/role-id")"
echo "a secret id, for VAULT_SECRET_ID: $cli write -f -field=secret_id auth/$approle/role/nova/secret-id"
