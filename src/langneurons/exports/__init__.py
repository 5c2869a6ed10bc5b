"""Plans and directions in the formats of other tools, which run them without hooks of ours."""
