"""Operations at a server, by its admin API: the other side of the commands' ``--server``."""
