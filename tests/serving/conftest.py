from support.tiny_folder import model_folder  # noqa: F401  (a fixture)
