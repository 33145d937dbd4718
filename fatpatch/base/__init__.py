"""What everything stands on: bytes, errors, limits, locators, words, files that appear whole. It knows no format."""
