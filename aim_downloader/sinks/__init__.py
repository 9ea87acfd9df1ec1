"""Where files live: a sink holds, takes and publishes them; its layout says where each lies."""
