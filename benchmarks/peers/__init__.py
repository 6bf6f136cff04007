"""One module per contender, run as a process: job in, one line of JSON out; see `measuring`."""
