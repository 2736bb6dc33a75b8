"""Pages in a real browser: `make test-pages`, which installs Chromium and what drives it. Not a part of `make test`."""
