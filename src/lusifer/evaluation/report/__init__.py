"""Reports of evaluation folders: an HTML page, Markdown and a section of a model card; `templates/` has the layout."""
