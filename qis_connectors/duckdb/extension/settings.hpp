// What users SET: qis_identity, qis_token, qis_tls_roots, qis_timeout.
#pragma once

#include <string>

#include "duckdb_api.hpp"
#include "router.hpp"

namespace qis {

bool RegisterSettings(duckdb_connection connection);

// Takes the context over.
Settings ReadSettings(duckdb_client_context context);

// The text of a value, which is taken over; empty for NULL.
std::string TakeText(duckdb_value value);

} // namespace qis
