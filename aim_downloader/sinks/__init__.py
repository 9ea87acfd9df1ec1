"""Where files live: each sink holds, takes and publishes the files of a model."""
