"""Grants: the ways in which a client obtains an authorization."""
