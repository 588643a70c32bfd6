"""The calendar of a ring as a picture in SVG."""
