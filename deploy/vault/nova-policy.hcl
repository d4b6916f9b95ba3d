# What Nova may do in Vault: read the secrets below "user", and nothing else. "data/" is the API's part of the path.
#
#   vault policy write nova deploy/vault/nova-policy.hcl

path "secret/data/user/*" {
  capabilities = ["read"]
}
