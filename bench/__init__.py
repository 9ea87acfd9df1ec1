"""Protocols and peers side by side: `make bench` measures, `docs/benchmarks.md` shows."""
