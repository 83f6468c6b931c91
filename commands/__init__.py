"""The commands, one module a subject: parse, build a config, call one function. No tensor is touched here."""
