"""A Hub of our own on this machine, with a CDN, that the usual clients can talk to."""
