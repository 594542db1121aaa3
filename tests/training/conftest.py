from support.small_run import finished, recipe  # noqa: F401  (fixtures)
