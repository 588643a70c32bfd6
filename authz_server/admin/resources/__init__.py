"""The resources of the admin API: each module has their requests and what answers them."""
