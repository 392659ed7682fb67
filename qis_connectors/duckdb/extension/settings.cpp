#include "settings.hpp"

namespace qis {

static bool RegisterOption(duckdb_connection connection, const char *name, duckdb_type type, duckdb_value preset,
                           const char *description) {
	auto option = duckdb_create_config_option();
	auto logical = duckdb_create_logical_type(type);
	duckdb_config_option_set_name(option, name);
	duckdb_config_option_set_type(option, logical);
	duckdb_config_option_set_default_value(option, preset);
	duckdb_config_option_set_default_scope(option, DUCKDB_CONFIG_OPTION_SCOPE_SESSION);
	duckdb_config_option_set_description(option, description);
	bool is_registered = duckdb_register_config_option(connection, option) == DuckDBSuccess;
	duckdb_destroy_value(&preset);
	duckdb_destroy_logical_type(&logical);
	duckdb_destroy_config_option(&option);
	return is_registered;
}

bool RegisterSettings(duckdb_connection connection) {
	return RegisterOption(connection, "qis_identity", DUCKDB_TYPE_VARCHAR, duckdb_create_varchar(""),
	                      "folder of the bundle to be known by at grpc+tls:// routers; QIS_IDENTITY if empty") &&
	       RegisterOption(connection, "qis_token", DUCKDB_TYPE_VARCHAR, duckdb_create_varchar(""),
	                      "bearer token for QIS routers, sent with every call") &&
	       RegisterOption(connection, "qis_tls_roots", DUCKDB_TYPE_VARCHAR, duckdb_create_varchar(""),
	                      "PEM file of the authorities that grpc+tls:// routers are checked against") &&
	       RegisterOption(connection, "qis_timeout", DUCKDB_TYPE_DOUBLE, duckdb_create_double(Settings().timeout),
	                      "seconds after which a QIS router that says nothing is given up");
}

std::string TakeText(duckdb_value value) {
	std::string text;
	if (value && !duckdb_is_null_value(value)) {
		auto owned = duckdb_get_varchar(value);
		text = owned ? owned : "";
		duckdb_free(owned);
	}
	duckdb_destroy_value(&value);
	return text;
}

Settings ReadSettings(duckdb_client_context context) {
	Settings settings;
	settings.identity = TakeText(duckdb_client_context_get_config_option(context, "qis_identity", nullptr));
	settings.token = TakeText(duckdb_client_context_get_config_option(context, "qis_token", nullptr));
	settings.tls_roots = TakeText(duckdb_client_context_get_config_option(context, "qis_tls_roots", nullptr));
	auto timeout = duckdb_client_context_get_config_option(context, "qis_timeout", nullptr);
	if (timeout && !duckdb_is_null_value(timeout)) {
		settings.timeout = duckdb_get_double(timeout);
	}
	duckdb_destroy_value(&timeout);
	duckdb_destroy_client_context(&context);
	return settings;
}

} // namespace qis
