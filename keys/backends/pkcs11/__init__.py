"""Key backend for hardware security modules, by PKCS#11."""
