"""The programs that run in a child process, one for each native engine; nobody imports them."""
