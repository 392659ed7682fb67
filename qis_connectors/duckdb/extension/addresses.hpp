// qis_addresses(url) and qis_attach(url, name)
#pragma once

#include "duckdb_api.hpp"

namespace qis {

bool RegisterAddresses(duckdb_connection connection);
bool RegisterAttach(duckdb_connection connection);

} // namespace qis
