// DuckDB's C extension API, in every file but the entry point's.
#pragma once

#include <arrow/c/abi.h> // before DuckDB's header, which only declares these structs

#define DUCKDB_EXTENSION_NAME qis
#include <duckdb_extension.h>
DUCKDB_EXTENSION_EXTERN
