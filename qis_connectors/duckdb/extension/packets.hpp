// qis_packets(url, address, since := , until := , filters := )
#pragma once

#include "duckdb_api.hpp"

namespace qis {

bool RegisterPackets(duckdb_connection connection);

} // namespace qis
