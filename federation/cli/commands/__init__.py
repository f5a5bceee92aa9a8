"""One module per group of commands; each command calls the client and renders. Heavy imports stay inside functions."""
