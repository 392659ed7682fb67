#include "packets.hpp"

#include <atomic>

#include <arrow/api.h>

#include "chunks.hpp"
#include "router.hpp"
#include "settings.hpp"
#include "stream.hpp"

namespace qis {

namespace flight = arrow::flight;
using arrow::Result;
using arrow::Status;

namespace {

// What a call asks for, of whom, and the columns that there are.
struct Bound {
	std::shared_ptr<Router> router;
	Request request;
	std::shared_ptr<arrow::Schema> schema;
};

// One run of it: the endpoints, which threads take one after the other.
struct Scan {
	std::shared_ptr<Router> router;
	std::shared_ptr<arrow::Schema> schema;
	std::vector<flight::FlightEndpoint> endpoints;
	std::atomic<size_t> next {0};
};

// What one thread reads.
struct Reading {
	std::unique_ptr<ChunkReader> chunks;
	std::unique_ptr<Stream> stream;
	std::shared_ptr<arrow::RecordBatch> batch;
	int64_t offset = 0;
};

template <class T>
void Delete(void *data) {
	delete static_cast<T *>(data);
}

Result<std::optional<int64_t>> Cursor(duckdb_bind_info info, const char *name) {
	auto value = duckdb_bind_get_named_parameter(info, name);
	std::optional<int64_t> cursor;
	if (value && !duckdb_is_null_value(value)) {
		cursor = duckdb_get_int64(value);
	}
	duckdb_destroy_value(&value);
	return cursor;
}

// The context that packets' own are to be similar to, and how similar.
Status ReadSimilar(duckdb_bind_info info, Request &request) {
	request.similar_to = TakeText(duckdb_bind_get_named_parameter(info, "similar_to"));
	request.definition = TakeText(duckdb_bind_get_named_parameter(info, "definition"));
	auto value = duckdb_bind_get_named_parameter(info, "threshold");
	if (value && !duckdb_is_null_value(value)) {
		request.threshold = duckdb_get_double(value);
	}
	duckdb_destroy_value(&value);
	if (request.similar_to.empty() && (request.threshold || !request.definition.empty())) {
		return Status::Invalid("threshold and definition need similar_to := '{...}', the context to be similar to");
	}
	if (request.threshold && !(*request.threshold >= 0 && *request.threshold <= 1)) {
		return Status::Invalid("threshold: a score is 0 to 1"); // NaN has no spelling in JSON
	}
	return Status::OK();
}

Result<std::shared_ptr<arrow::Schema>> SchemaOf(const flight::FlightInfo &info) {
	arrow::ipc::DictionaryMemo memo;
	return info.GetSchema(&memo);
}

Status Bind(duckdb_bind_info info, Bound &bound) {
	duckdb_client_context context = nullptr;
	duckdb_table_function_get_client_context(info, &context);
	auto settings = ReadSettings(context);
	ARROW_ASSIGN_OR_RAISE(bound.router, Router::Connect(TakeText(duckdb_bind_get_parameter(info, 0)), settings));
	bound.request.address = TakeText(duckdb_bind_get_parameter(info, 1));
	ARROW_ASSIGN_OR_RAISE(bound.request.since, Cursor(info, "since"));
	ARROW_ASSIGN_OR_RAISE(bound.request.until, Cursor(info, "until"));
	bound.request.filters = TakeText(duckdb_bind_get_named_parameter(info, "filters"));
	ARROW_RETURN_NOT_OK(ReadSimilar(info, bound.request));

	ARROW_ASSIGN_OR_RAISE(auto described, bound.router->Describe(bound.request));
	ARROW_ASSIGN_OR_RAISE(bound.schema, SchemaOf(*described));
	for (const auto &field : bound.schema->fields()) {
		auto type = LogicalType(*field->type());
		if (!type) {
			return Status::NotImplemented("router ", bound.router->url(), " has a field '", field->name(), "' of type ",
			                              field->type()->ToString(),
			                              ", which this version does not know: install a newer qis-connectors");
		}
		duckdb_bind_add_result_column(info, field->name().c_str(), type);
		duckdb_destroy_logical_type(&type);
	}
	if (described->total_records() >= 0) {
		duckdb_bind_set_cardinality(info, static_cast<idx_t>(described->total_records()), false);
	}
	return Status::OK();
}

Status Init(duckdb_init_info info, const Bound &bound, Scan &scan) {
	scan.router = bound.router;
	auto request = bound.request;
	for (idx_t at = 0; at < duckdb_init_get_column_count(info); at++) {
		// count(*) asks for no column; DuckDB then names the first, or one there is not.
		auto column = duckdb_init_get_column_index(info, at);
		auto known = column < static_cast<idx_t>(bound.schema->num_fields()) ? column : 0;
		request.columns.push_back(bound.schema->field(static_cast<int>(known))->name());
	}
	ARROW_ASSIGN_OR_RAISE(auto described, bound.router->Describe(request));
	ARROW_ASSIGN_OR_RAISE(scan.schema, SchemaOf(*described));
	scan.endpoints = described->endpoints();
	duckdb_init_set_max_threads(info, std::max<idx_t>(1, scan.endpoints.size()));
	return Status::OK();
}

// The next batch with rows, of this endpoint or the next; nullptr when all are read.
Result<std::shared_ptr<arrow::RecordBatch>> NextBatch(Scan &scan, Reading &reading) {
	while (true) {
		if (!reading.stream) {
			auto at = scan.next++;
			if (at >= scan.endpoints.size()) {
				return nullptr;
			}
			reading.stream = std::make_unique<Stream>(scan.router, scan.endpoints[at].ticket, scan.schema);
		}
		ARROW_ASSIGN_OR_RAISE(auto batch, reading.stream->Next());
		if (!batch) {
			reading.stream.reset();
		} else if (batch->num_rows() > 0) {
			return batch;
		}
	}
}

Status Execute(Scan &scan, Reading &reading, duckdb_data_chunk chunk) {
	if (!reading.batch || reading.offset >= reading.batch->num_rows()) {
		ARROW_ASSIGN_OR_RAISE(reading.batch, NextBatch(scan, reading));
		reading.offset = 0;
	}
	if (!reading.batch) {
		duckdb_data_chunk_set_size(chunk, 0);
		return Status::OK();
	}
	if (!reading.chunks) {
		ARROW_ASSIGN_OR_RAISE(reading.chunks, ChunkReader::Make(*scan.schema));
	}
	ARROW_ASSIGN_OR_RAISE(auto rows, reading.chunks->Fill(*reading.batch, reading.offset, chunk));
	reading.offset += rows;
	return Status::OK();
}

void OnBind(duckdb_bind_info info) {
	auto bound = std::make_unique<Bound>();
	auto status = Bind(info, *bound);
	if (!status.ok()) {
		duckdb_bind_set_error(info, status.message().c_str());
		return;
	}
	duckdb_bind_set_bind_data(info, bound.release(), Delete<Bound>);
}

void OnInit(duckdb_init_info info) {
	auto scan = std::make_unique<Scan>();
	auto status = Init(info, *static_cast<Bound *>(duckdb_init_get_bind_data(info)), *scan);
	if (!status.ok()) {
		duckdb_init_set_error(info, status.message().c_str());
		return;
	}
	duckdb_init_set_init_data(info, scan.release(), Delete<Scan>);
}

void OnLocalInit(duckdb_init_info info) {
	duckdb_init_set_init_data(info, new Reading, Delete<Reading>);
}

void OnExecute(duckdb_function_info info, duckdb_data_chunk chunk) {
	auto &scan = *static_cast<Scan *>(duckdb_function_get_init_data(info));
	auto &reading = *static_cast<Reading *>(duckdb_function_get_local_init_data(info));
	auto status = Execute(scan, reading, chunk);
	if (!status.ok()) {
		duckdb_function_set_error(info, status.message().c_str());
	}
}

} // namespace

bool RegisterPackets(duckdb_connection connection) {
	auto function = duckdb_create_table_function();
	auto text = duckdb_create_logical_type(DUCKDB_TYPE_VARCHAR);
	auto cursor = duckdb_create_logical_type(DUCKDB_TYPE_BIGINT);
	auto score = duckdb_create_logical_type(DUCKDB_TYPE_DOUBLE);
	duckdb_table_function_set_name(function, "qis_packets");
	duckdb_table_function_add_parameter(function, text);
	duckdb_table_function_add_parameter(function, text);
	duckdb_table_function_add_named_parameter(function, "since", cursor);
	duckdb_table_function_add_named_parameter(function, "until", cursor);
	duckdb_table_function_add_named_parameter(function, "filters", text);
	duckdb_table_function_add_named_parameter(function, "similar_to", text);
	duckdb_table_function_add_named_parameter(function, "threshold", score);
	duckdb_table_function_add_named_parameter(function, "definition", text);
	duckdb_table_function_set_bind(function, OnBind);
	duckdb_table_function_set_init(function, OnInit);
	duckdb_table_function_set_local_init(function, OnLocalInit);
	duckdb_table_function_set_function(function, OnExecute);
	duckdb_table_function_supports_projection_pushdown(function, true);
	bool is_registered = duckdb_register_table_function(connection, function) == DuckDBSuccess;
	duckdb_destroy_table_function(&function);
	duckdb_destroy_logical_type(&text);
	duckdb_destroy_logical_type(&cursor);
	duckdb_destroy_logical_type(&score);
	return is_registered;
}

} // namespace qis
