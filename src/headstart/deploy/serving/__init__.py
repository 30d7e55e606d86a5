"""An exported model over HTTP: a JSON API and a page, within limits, without torch."""
