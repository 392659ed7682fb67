// A table function that asks a router once and lists what it has answered.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include <arrow/result.h>

#include "duckdb_api.hpp"
#include "router.hpp"

namespace qis {

using Cell = std::variant<std::string, int64_t>;
using Row = std::vector<Cell>;

struct Column {
	const char *name;
	duckdb_type type; // VARCHAR or BIGINT
};

struct Listing {
	const char *name;
	idx_t parameters; // all VARCHAR, the router's url the first
	std::vector<Column> columns;
	arrow::Result<std::vector<Row>> (*rows)(Router &router, const std::vector<std::string> &parameters);
};

// `listing` must live as long as the process.
bool RegisterListing(duckdb_connection connection, const Listing &listing);

} // namespace qis
