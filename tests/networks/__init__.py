"""The fronts behind real proxies: nginx, a content filter that holds whole answers, and one that cuts connections."""
