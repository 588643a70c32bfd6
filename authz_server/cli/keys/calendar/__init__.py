"""The calendar of a ring as a picture: SVG, and text for a terminal."""
