#include "copy.hpp"

#include "chunks.hpp"
#include "deposit.hpp"
#include "settings.hpp"

namespace qis {

using arrow::Status;

namespace {

struct Target {
	std::unique_ptr<BatchWriter> batches;
};

Status Bind(duckdb_copy_function_bind_info info, Target &target) {
	auto options = duckdb_copy_function_bind_get_options(info);
	bool has_options = options && !duckdb_is_null_value(options);
	duckdb_destroy_value(&options);
	if (has_options) {
		return Status::Invalid("FORMAT qis takes no options");
	}
	auto count = duckdb_copy_function_bind_get_column_count(info);
	auto most = static_cast<idx_t>(PacketSchema()->num_fields());
	if (count < kInterchangeFields || count > most) {
		return Status::Invalid("a packet has the ", kInterchangeFields, " fields of the interchange schema, then up to ",
		                       most - kInterchangeFields, " of ours, in the order of qis_packets; this query has ",
		                       count);
	}
	// This API does not tell the columns' names, so that it is their order that counts.
	std::vector<duckdb_logical_type> types;
	std::vector<std::string> names;
	for (idx_t at = 0; at < count; at++) {
		types.push_back(duckdb_copy_function_bind_get_column_type(info, at));
		names.push_back(PacketSchema()->field(static_cast<int>(at))->name());
	}
	auto batches = BatchWriter::Make(types, names);
	for (auto &type : types) {
		duckdb_destroy_logical_type(&type);
	}
	ARROW_ASSIGN_OR_RAISE(target.batches, std::move(batches));
	return Status::OK();
}

arrow::Result<std::unique_ptr<Deposit>> Begin(duckdb_copy_function_global_init_info info) {
	auto settings = ReadSettings(duckdb_copy_function_global_init_get_client_context(info));
	ARROW_ASSIGN_OR_RAISE(auto router, Router::Connect(duckdb_copy_function_global_init_get_file_path(info), settings));
	return Deposit::Begin(router);
}

Status Sink(Target &target, Deposit &deposit, duckdb_data_chunk chunk) {
	ARROW_ASSIGN_OR_RAISE(auto batch, target.batches->Copy(chunk));
	return deposit.Add(std::move(batch));
}

void OnBind(duckdb_copy_function_bind_info info) {
	auto target = std::make_unique<Target>();
	auto status = Bind(info, *target);
	if (!status.ok()) {
		duckdb_copy_function_bind_set_error(info, status.message().c_str());
		return;
	}
	duckdb_copy_function_bind_set_bind_data(info, target.release(),
	                                        [](void *data) { delete static_cast<Target *>(data); });
}

void OnInit(duckdb_copy_function_global_init_info info) {
	auto deposit = Begin(info);
	if (!deposit.ok()) {
		duckdb_copy_function_global_init_set_error(info, deposit.status().message().c_str());
		return;
	}
	duckdb_copy_function_global_init_set_global_state(info, deposit->release(),
	                                                  [](void *data) { delete static_cast<Deposit *>(data); });
}

void OnSink(duckdb_copy_function_sink_info info, duckdb_data_chunk chunk) {
	auto &target = *static_cast<Target *>(duckdb_copy_function_sink_get_bind_data(info));
	auto &deposit = *static_cast<Deposit *>(duckdb_copy_function_sink_get_global_state(info));
	auto status = Sink(target, deposit, chunk);
	if (!status.ok()) {
		duckdb_copy_function_sink_set_error(info, status.message().c_str());
	}
}

void OnFinalize(duckdb_copy_function_finalize_info info) {
	auto status = static_cast<Deposit *>(duckdb_copy_function_finalize_get_global_state(info))->Commit();
	if (!status.ok()) {
		duckdb_copy_function_finalize_set_error(info, status.message().c_str());
	}
}

} // namespace

bool RegisterCopy(duckdb_connection connection) {
	auto function = duckdb_create_copy_function();
	duckdb_copy_function_set_name(function, "qis");
	duckdb_copy_function_set_bind(function, OnBind);
	duckdb_copy_function_set_global_init(function, OnInit);
	duckdb_copy_function_set_sink(function, OnSink);
	duckdb_copy_function_set_finalize(function, OnFinalize);
	bool is_registered = duckdb_register_copy_function(connection, function) == DuckDBSuccess;
	duckdb_destroy_copy_function(&function);
	return is_registered;
}

} // namespace qis
