#include "listing.hpp"

#include <algorithm>
#include <atomic>

#include "settings.hpp"

namespace qis {

namespace {

struct Call {
	const Listing *listing;
	std::shared_ptr<Router> router;
	std::vector<std::string> parameters;
};

struct Answer {
	std::vector<Row> rows;
	size_t next = 0;
};

const Listing &ListingOf(void *extra) {
	return *static_cast<const Listing *>(extra);
}

void Bind(duckdb_bind_info info) {
	auto &listing = ListingOf(duckdb_bind_get_extra_info(info));
	duckdb_client_context context = nullptr;
	duckdb_table_function_get_client_context(info, &context);
	auto call = std::make_unique<Call>();
	call->listing = &listing;
	for (idx_t at = 0; at < listing.parameters; at++) {
		call->parameters.push_back(TakeText(duckdb_bind_get_parameter(info, at)));
	}
	auto router = Router::Connect(call->parameters[0], ReadSettings(context));
	if (!router.ok()) {
		duckdb_bind_set_error(info, router.status().message().c_str());
		return;
	}
	call->router = *router;
	for (const auto &column : listing.columns) {
		auto type = duckdb_create_logical_type(column.type);
		duckdb_bind_add_result_column(info, column.name, type);
		duckdb_destroy_logical_type(&type);
	}
	duckdb_bind_set_bind_data(info, call.release(), [](void *data) { delete static_cast<Call *>(data); });
}

void Init(duckdb_init_info info) {
	auto &call = *static_cast<Call *>(duckdb_init_get_bind_data(info));
	auto rows = call.listing->rows(*call.router, call.parameters);
	if (!rows.ok()) {
		duckdb_init_set_error(info, rows.status().message().c_str());
		return;
	}
	duckdb_init_set_max_threads(info, 1);
	duckdb_init_set_init_data(info, new Answer {std::move(*rows)},
	                          [](void *data) { delete static_cast<Answer *>(data); });
}

void Execute(duckdb_function_info info, duckdb_data_chunk chunk) {
	auto &answer = *static_cast<Answer *>(duckdb_function_get_init_data(info));
	auto count = std::min<size_t>(answer.rows.size() - answer.next, duckdb_vector_size());
	for (idx_t column = 0; column < duckdb_data_chunk_get_column_count(chunk); column++) {
		auto vector = duckdb_data_chunk_get_vector(chunk, column);
		for (size_t at = 0; at < count; at++) {
			const auto &cell = answer.rows[answer.next + at][column];
			if (auto text = std::get_if<std::string>(&cell)) {
				duckdb_vector_assign_string_element_len(vector, at, text->data(), text->size());
			} else {
				static_cast<int64_t *>(duckdb_vector_get_data(vector))[at] = std::get<int64_t>(cell);
			}
		}
	}
	answer.next += count;
	duckdb_data_chunk_set_size(chunk, count);
}

} // namespace

bool RegisterListing(duckdb_connection connection, const Listing &listing) {
	auto function = duckdb_create_table_function();
	auto text = duckdb_create_logical_type(DUCKDB_TYPE_VARCHAR);
	duckdb_table_function_set_name(function, listing.name);
	for (idx_t at = 0; at < listing.parameters; at++) {
		duckdb_table_function_add_parameter(function, text);
	}
	duckdb_table_function_set_extra_info(function, const_cast<Listing *>(&listing), nullptr);
	duckdb_table_function_set_bind(function, Bind);
	duckdb_table_function_set_init(function, Init);
	duckdb_table_function_set_function(function, Execute);
	bool is_registered = duckdb_register_table_function(connection, function) == DuckDBSuccess;
	duckdb_destroy_table_function(&function);
	duckdb_destroy_logical_type(&text);
	return is_registered;
}

} // namespace qis
