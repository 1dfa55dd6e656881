"""The database's shape, version by version. SQL lives in sql/; a version only names its files."""
