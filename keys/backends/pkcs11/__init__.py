"""Hardware security modules by PKCS#11."""
