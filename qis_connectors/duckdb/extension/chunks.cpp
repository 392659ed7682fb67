#include "chunks.hpp"

#include <algorithm>

#include <arrow/c/bridge.h>

namespace qis {

using arrow::Result;
using arrow::Status;

// DuckDB converts on behalf of a connection. One into the user's database would keep its file locked after they close
// it, so this is into an empty one of our own. It is never closed: scans may run when the process ends.
static duckdb_connection Converter() {
	static duckdb_database database = nullptr;
	static duckdb_connection connection = [] {
		duckdb_config config = nullptr;
		duckdb_connection opened = nullptr;
		duckdb_create_config(&config);
		duckdb_set_config(config, "threads", "1");
		if (duckdb_open_ext(nullptr, &database, config, nullptr) == DuckDBSuccess) {
			duckdb_connect(database, &opened);
		}
		duckdb_destroy_config(&config);
		return opened;
	}();
	return connection;
}

static Status Taken(duckdb_error_data error) {
	if (!error) {
		return Status::OK();
	}
	auto status = duckdb_error_data_has_error(error) ? Status::Invalid(duckdb_error_data_message(error)) : Status::OK();
	duckdb_destroy_error_data(&error);
	return status;
}

duckdb_logical_type LogicalType(const arrow::DataType &type) {
	switch (type.id()) {
	case arrow::Type::STRING:
		return duckdb_create_logical_type(DUCKDB_TYPE_VARCHAR);
	case arrow::Type::BINARY:
		return duckdb_create_logical_type(DUCKDB_TYPE_BLOB);
	case arrow::Type::INT8:
		return duckdb_create_logical_type(DUCKDB_TYPE_TINYINT);
	case arrow::Type::INT32:
		return duckdb_create_logical_type(DUCKDB_TYPE_INTEGER);
	case arrow::Type::INT64:
		return duckdb_create_logical_type(DUCKDB_TYPE_BIGINT);
	case arrow::Type::FLOAT:
		return duckdb_create_logical_type(DUCKDB_TYPE_FLOAT);
	case arrow::Type::DOUBLE:
		return duckdb_create_logical_type(DUCKDB_TYPE_DOUBLE);
	case arrow::Type::LIST: {
		auto child = LogicalType(*static_cast<const arrow::ListType &>(type).value_type());
		auto list = child ? duckdb_create_list_type(child) : nullptr;
		duckdb_destroy_logical_type(&child);
		return list;
	}
	default:
		return nullptr;
	}
}

Result<std::unique_ptr<ChunkReader>> ChunkReader::Make(const arrow::Schema &schema) {
	auto reader = std::make_unique<ChunkReader>();
	ArrowSchema exported;
	ARROW_RETURN_NOT_OK(arrow::ExportSchema(schema, &exported));
	auto status = Taken(duckdb_schema_from_arrow(Converter(), &exported, &reader->schema_));
	if (exported.release) {
		exported.release(&exported);
	}
	ARROW_RETURN_NOT_OK(status);
	return reader;
}

ChunkReader::~ChunkReader() {
	duckdb_destroy_arrow_converted_schema(&schema_);
}

Result<int64_t> ChunkReader::Fill(const arrow::RecordBatch &batch, int64_t offset, duckdb_data_chunk chunk) {
	auto rows = std::min<int64_t>(batch.num_rows() - offset, static_cast<int64_t>(duckdb_vector_size()));
	ArrowArray exported;
	ARROW_RETURN_NOT_OK(arrow::ExportRecordBatch(*batch.Slice(offset, rows), &exported));
	duckdb_data_chunk converted = nullptr;
	auto status = Taken(duckdb_data_chunk_from_arrow(Converter(), &exported, schema_, &converted));
	if (exported.release) {
		exported.release(&exported);
	}
	ARROW_RETURN_NOT_OK(status);
	for (idx_t column = 0; column < duckdb_data_chunk_get_column_count(chunk); column++) {
		duckdb_vector_reference_vector(duckdb_data_chunk_get_vector(chunk, column),
		                               duckdb_data_chunk_get_vector(converted, column));
	}
	duckdb_data_chunk_set_size(chunk, static_cast<idx_t>(rows));
	duckdb_destroy_data_chunk(&converted);
	return rows;
}

Result<std::unique_ptr<BatchWriter>> BatchWriter::Make(std::vector<duckdb_logical_type> types,
                                                       const std::vector<std::string> &names) {
	auto writer = std::make_unique<BatchWriter>();
	std::vector<const char *> texts;
	for (const auto &name : names) {
		texts.push_back(name.c_str());
	}
	duckdb_connection_get_arrow_options(Converter(), &writer->options_);
	ArrowSchema exported;
	ARROW_RETURN_NOT_OK(
	    Taken(duckdb_to_arrow_schema(writer->options_, types.data(), texts.data(), texts.size(), &exported)));
	ARROW_ASSIGN_OR_RAISE(writer->schema_, arrow::ImportSchema(&exported));
	return writer;
}

BatchWriter::~BatchWriter() {
	duckdb_destroy_arrow_options(&options_);
}

Result<std::shared_ptr<arrow::RecordBatch>> BatchWriter::Copy(duckdb_data_chunk chunk) {
	ArrowArray exported;
	ARROW_RETURN_NOT_OK(Taken(duckdb_data_chunk_to_arrow(options_, chunk, &exported)));
	return arrow::ImportRecordBatch(&exported, schema_);
}

} // namespace qis
