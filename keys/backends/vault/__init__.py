"""HashiCorp Vault and OpenBao: connections, logins, the transit and KV engines."""
