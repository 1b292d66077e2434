"""The command line: the table of commands, arguments and options, completion, help pages, `doctor`."""
