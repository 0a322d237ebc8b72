"""The built-in continuum and the built-in model: everything `liit demo` needs, out of packages."""
