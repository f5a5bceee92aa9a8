"""The stores behind the `blob` port, one module each; every one passes the same contract suite.

They turn a client library's answers into done, refused or unknown. No journal logic and no retries of their own.
"""
