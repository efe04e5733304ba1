"""One static page that compares reconstructions: `make gallery`."""
