#include "addresses.hpp"

#include <cctype>

#include "listing.hpp"

namespace qis {

using arrow::Result;
using Texts = std::vector<std::string>;

static Result<std::vector<Row>> Addresses(Router &router, const Texts &) {
	ARROW_ASSIGN_OR_RAISE(auto found, router.Addresses("*"));
	std::vector<Row> rows;
	for (const auto &one : found) {
		rows.push_back({one.address, one.packets, one.bytes, one.first_time, one.last_time});
	}
	return rows;
}

bool RegisterAddresses(duckdb_connection connection) {
	static const Listing listing {"qis_addresses",
	                              1,
	                              {{"address", DUCKDB_TYPE_VARCHAR},
	                               {"packets", DUCKDB_TYPE_BIGINT},
	                               {"bytes", DUCKDB_TYPE_BIGINT},
	                               {"first_time", DUCKDB_TYPE_BIGINT},
	                               {"last_time", DUCKDB_TYPE_BIGINT}},
	                              Addresses};
	return RegisterListing(connection, listing);
}

// A segment of an address, as address.py writes it, without its percent-encoding.
static std::string Decoded(const std::string &segment) {
	std::string text;
	for (size_t at = 0; at < segment.size(); at++) {
		if (segment[at] == '%' && at + 2 < segment.size() && std::isxdigit(segment[at + 1]) &&
		    std::isxdigit(segment[at + 2])) {
			text += static_cast<char>(std::stoi(segment.substr(at + 1, 2), nullptr, 16));
			at += 2;
		} else {
			text += segment[at];
		}
	}
	return text;
}

static std::string Doubled(const std::string &text, char quote) {
	std::string quoted(1, quote);
	for (char letter : text) {
		quoted += letter;
		if (letter == quote) {
			quoted += quote;
		}
	}
	return quoted + quote;
}

// The statements that make a database of views of a router: a schema a domain, a view a problem type. The C API lets no
// function run them itself.
static Result<std::vector<Row>> Statements(Router &router, const Texts &parameters) {
	ARROW_ASSIGN_OR_RAISE(auto found, router.Addresses("*"));
	auto database = Doubled(parameters[1], '"');
	std::vector<Row> rows {{"ATTACH IF NOT EXISTS ':memory:' AS " + database}};
	std::string last;
	for (const auto &one : found) {
		auto slash = one.address.find('/');
		auto schema = database + "." + Doubled(Decoded(one.address.substr(0, slash)), '"');
		if (schema != last) {
			rows.push_back({"CREATE SCHEMA IF NOT EXISTS " + schema});
			last = schema;
		}
		auto view = schema + "." + Doubled(Decoded(one.address.substr(slash + 1)), '"');
		rows.push_back({"CREATE OR REPLACE VIEW " + view + " AS SELECT * FROM qis_packets(" +
		                Doubled(parameters[0], '\'') + ", " + Doubled(one.address, '\'') + ")"});
	}
	return rows;
}

bool RegisterAttach(duckdb_connection connection) {
	static const Listing listing {"qis_attach", 2, {{"statement", DUCKDB_TYPE_VARCHAR}}, Statements};
	return RegisterListing(connection, listing);
}

} // namespace qis
