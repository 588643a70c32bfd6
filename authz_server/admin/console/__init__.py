"""The console: pages in HTML for the people who administer the server."""
