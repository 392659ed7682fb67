// COPY (...) TO 'grpc://...' (FORMAT qis)
#pragma once

#include "duckdb_api.hpp"

namespace qis {

bool RegisterCopy(duckdb_connection connection);

} // namespace qis
