"""Every user at once: workers on Dask, the ledger of what is done, and the summary."""
