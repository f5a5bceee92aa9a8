"""The server process: loop, HTTP API, web page, metrics, following the journal.

A shell: it receives bytes, asks `federation.core` and carries out the answer. No decisions here.
"""
