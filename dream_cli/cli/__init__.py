"""The command line: the table of commands, arguments and options, completion, help pages, and the checks of `dream doctor`."""
