"""The engines: the protocol, and one file per engine. Only the registry names the engines."""
