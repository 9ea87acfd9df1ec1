"""Tests of single modules, without network and without other processes where possible."""
