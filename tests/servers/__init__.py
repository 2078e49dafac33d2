"""Real servers for tests: started on free ports and sockets of this machine, stopped by their process ids."""
