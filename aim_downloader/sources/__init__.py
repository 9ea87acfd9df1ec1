"""What exists: each source pins a revision and lists the files of a model."""
