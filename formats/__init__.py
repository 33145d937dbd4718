"""Binary layouts as construct declarations: constants, enums, structures and one DOC a format. No I/O, no policy."""
