"""Key backends: database, file, Vault and PKCS#11, behind ``keys.backend.KeyBackend``."""
