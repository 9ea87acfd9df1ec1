"""The one place that knows HTTP libraries: one set of rules, and a client for each lane.

``BulkClient`` (urllib3, blocking, for threads) moves the bytes of large files. ``AsyncClient``
(aiohttp) asks the Hub's API and fetches small files. Tokens, redirects, proxies, certificates and
the meaning of a status are decided once, for both.
"""
