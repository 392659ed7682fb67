// Arrow batches to DuckDB's chunks and back, by DuckDB's own conversion.
#pragma once

#include <memory>
#include <vector>

#include <arrow/api.h>

#include "duckdb_api.hpp"

namespace qis {

// The DuckDB type of an Arrow one that packets are made of; nullptr for any other. To be destroyed.
duckdb_logical_type LogicalType(const arrow::DataType &type);

// Batches of one schema into chunks, without copying the texts.
class ChunkReader {
public:
	static arrow::Result<std::unique_ptr<ChunkReader>> Make(const arrow::Schema &schema);
	~ChunkReader();

	// Make `chunk` of the rows of `batch` from `offset` on; how many these are.
	arrow::Result<int64_t> Fill(const arrow::RecordBatch &batch, int64_t offset, duckdb_data_chunk chunk);

private:
	duckdb_arrow_converted_schema schema_ = nullptr;
};

// Chunks of some types into batches.
class BatchWriter {
public:
	static arrow::Result<std::unique_ptr<BatchWriter>> Make(std::vector<duckdb_logical_type> types,
	                                                        const std::vector<std::string> &names);
	~BatchWriter();

	arrow::Result<std::shared_ptr<arrow::RecordBatch>> Copy(duckdb_data_chunk chunk);

private:
	duckdb_arrow_options options_ = nullptr;
	std::shared_ptr<arrow::Schema> schema_;
};

} // namespace qis
