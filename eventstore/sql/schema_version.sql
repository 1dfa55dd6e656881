-- Promises: the version that the database was migrated to. One row.
SELECT version_num FROM alembic_version
