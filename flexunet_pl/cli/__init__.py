"""The command line: the table of verbs, parsing, how a run ends."""
