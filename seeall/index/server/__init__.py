"""`ssl serve`: an index over HTTP, and one page to look at it. Needs the extra `serve`."""
