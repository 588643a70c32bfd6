"""The grants, by which a client obtains an authorization."""
