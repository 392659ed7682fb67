// The extension's door: what DuckDB calls on LOAD.
#include <arrow/c/abi.h>

#define DUCKDB_EXTENSION_NAME qis
#include <duckdb_extension.h>

#include "addresses.hpp"
#include "copy.hpp"
#include "packets.hpp"
#include "settings.hpp"

DUCKDB_EXTENSION_ENTRYPOINT(duckdb_connection connection, duckdb_extension_info info,
                            struct duckdb_extension_access *access) {
	for (auto register_part : {qis::RegisterSettings, qis::RegisterPackets, qis::RegisterAddresses, qis::RegisterAttach,
	                           qis::RegisterCopy}) {
		if (!register_part(connection)) {
			access->set_error(info, "qis: this DuckDB refuses to register the extension's functions");
			return false;
		}
	}
	return true;
}
