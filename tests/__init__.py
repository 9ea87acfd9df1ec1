"""Tests of the downloader, by kind: unit, contract, integration."""
