"""Contract tests of methods and nets, for pytest: subclass one, name your file, and run it. See CONTRIBUTING.md."""
