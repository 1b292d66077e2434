"""Who answers: the protocol, and one file per engine. Only the loader names the engines."""
